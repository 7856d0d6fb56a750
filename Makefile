# Everything runs from .venv, which each target sets up by itself with what it needs and no more.

PYTHON ?= python3
# Compiling every installed file takes longer than installing it. Python compiles what is imported and keeps
# that, unless this variable forbids it.
export PYTHONDONTWRITEBYTECODE :=
PIP_INSTALL = PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt \
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-compile
# Tests wait for other processes most of the time: more workers than cores keep the cores busy.
PYTEST = .venv/bin/python -m pytest --numprocesses $(WORKERS) --dist loadgroup
WORKERS ?= 4

# DEMO_FLAGS=--fresh searches anew instead of going on with what the last demo learnt.
DEMO_FLAGS ?=
# For instance TEST_FLAGS='-k storage'; -p randomly runs the tests in random order.
TEST_FLAGS ?=
# For instance SOAK_FLAGS='kill --minutes 5'.
SOAK_FLAGS ?=

.PHONY: demo serve test test-all soak lint clean

demo: .venv/.installed
	@.venv/bin/paceline run examples/digits.toml --output paceline-out/digits --verify $(DEMO_FLAGS)

# A server with its page, one worker, and the digits job submitted; PORT=8080 is the port. Ctrl-C stops them.
serve: .venv/.installed-serve
	@PACELINE=.venv/bin/paceline sh examples/service.sh

# About five minutes on two cores; needs no server and no system package.
test: .venv/.installed-test
	@$(PYTEST) --fast $(TEST_FLAGS)

# Every test; those whose server or system package is not here are skipped and say why.
test-all: .venv/.installed-dev
	@.ci/with_postgres.sh --if-installed $(PYTEST) $(TEST_FLAGS)

# Long runs under load, kills and random input; the results are in benchmarks/results/soak_*.json.
soak: .venv/.installed-dev
	@.venv/bin/python -m benchmarks.soak $(SOAK_FLAGS)

lint: .venv/.installed-dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy -p search_spaces -p tuner -p storage -m cli -m paceline -m paceline_client -m paceline_remote

clean:
	rm -rf .venv dist paceline-out

comma := ,
# $(call install,EXTRAS,STAMPS): one call of pip, since each takes seconds to prepare.
define install
	@test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@$(PIP_INSTALL) --editable '.$(1)'
	@touch $(2)
endef

.venv/.installed: pyproject.toml constraints.txt
	@echo "installing what Paceline needs into .venv (a minute or two, once)" >&2
	$(call install,[examples],$@)

.venv/.installed-serve: pyproject.toml constraints.txt
	@echo "installing Paceline and what its server needs into .venv (a minute or two, once)" >&2
	$(call install,[examples$(comma)serve],.venv/.installed $@)

.venv/.installed-test: pyproject.toml constraints.txt
	@echo "installing Paceline and what the tests need into .venv (a minute or two, once)" >&2
	$(call install,[test],.venv/.installed .venv/.installed-serve $@)
	@# Compiles what most tests import, once instead of in each worker.
	@.venv/bin/python -c 'import torch._dynamo, optuna, scipy.stats, sklearn.datasets'

.venv/.installed-dev: pyproject.toml constraints.txt
	@echo "installing Paceline and all that development needs into .venv (some minutes, once)" >&2
	$(call install,[dev],.venv/.installed .venv/.installed-serve .venv/.installed-test $@)
