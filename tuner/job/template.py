"""The commented job template and the bundled example jobs."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from tuner.domain.errors import JobError, did_you_mean

_FOLDER = Path(__file__).resolve().parent
_INSTALLED_EXAMPLES = _FOLDER.parent / "examples"
_CHECKOUT = _FOLDER.parent.parent


def job_template() -> str:
    """A job file that explains every table; it is valid without changes."""
    return (_FOLDER / "template.toml").read_text(encoding="utf-8")


def example_names() -> list[str]:
    """Names of the bundled examples, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def example_text(name: str) -> str:
    """The job file of an example.

    Raises:
        JobError: No example has this name; the message lists those that exist and the nearest.
    """
    names = example_names()
    if name not in names:
        raise JobError(
            f"there is no example {name!r}{did_you_mean(name, names)} Examples are {', '.join(names)}"
        )
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def example_scripts(name: str) -> dict[str, str]:
    """The scripts that an example's command runs, as file name to text; none if it trains a Workload.

    Raises:
        JobError: No example has this name.
    """
    command = tomllib.loads(example_text(name)).get("workload", {}).get("command", "")
    files = [_folder() / word for word in shlex.split(command) if word.endswith(".py")]
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def _folder() -> Path:
    # The wheel has the examples inside the package, a checkout at its root. Only a checkout has
    # pyproject.toml: a folder `examples` beside an installed package belongs to another package.
    if not _INSTALLED_EXAMPLES.is_dir() and (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "examples"
    return _INSTALLED_EXAMPLES
