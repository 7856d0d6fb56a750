# Everything runs from .venv, which is set up by itself: `make demo`, `make test`, `make lint`.

PYTHON ?= python3
PIP_INSTALL = .venv/bin/python -m pip install --quiet --disable-pip-version-check
INSTALLED = .venv/.installed

# DEMO_FLAGS=--fresh searches anew instead of going on with what the last demo learnt.
DEMO_FLAGS ?=
# For instance TEST_FLAGS='-m "not slow"'.
TEST_FLAGS ?=

.PHONY: demo test lint clean

demo: $(INSTALLED)
	@.venv/bin/paceline run examples/digits.toml --output paceline-out/digits --verify $(DEMO_FLAGS)

test: $(INSTALLED)
	@.venv/bin/python -m pytest $(TEST_FLAGS)

lint: $(INSTALLED)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy -p search_spaces -p tuner -p storage -m cli

clean:
	rm -rf .venv dist paceline-out

$(INSTALLED): pyproject.toml constraints.txt
	@echo "setting up .venv (a minute or two, once)" >&2
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt $(PIP_INSTALL) --editable '.[dev]'
	@touch $@
