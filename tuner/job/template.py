"""Reads the commented job template and the example jobs that are part of Paceline."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path

from tuner.domain.errors import JobError, did_you_mean

_FOLDER = Path(__file__).resolve().parent
_INSTALLED_EXAMPLES = _FOLDER.parent / "examples"
_CHECKOUT = _FOLDER.parent.parent


def job_template() -> str:
    """Returns the text of a job file that explains every table. It is valid without changes."""
    return (_FOLDER / "template.toml").read_text(encoding="utf-8")


def example_names() -> list[str]:
    """Returns the names of the example jobs, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def example_text(name: str) -> str:
    """Returns the text of the job file of an example.

    Raises:
        JobError: No example has this name. The message lists all examples and suggests a similar name.
    """
    names = example_names()
    if name not in names:
        raise JobError(
            f"there is no example {name!r}{did_you_mean(name, names)} Examples are {', '.join(names)}"
        )
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def example_scripts(name: str) -> dict[str, str]:
    """Maps the file name of each script that the command of an example runs to the text of the script.

    The mapping is empty if the example trains a Workload.

    Raises:
        JobError: No example has this name.
    """
    command = tomllib.loads(example_text(name)).get("workload", {}).get("command", "")
    files = [_folder() / word for word in shlex.split(command) if word.endswith(".py")]
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def _folder() -> Path:
    # A wheel contains the examples inside the package, and a checkout of the repository contains them at its
    # root. A checkout is recognized by pyproject.toml, because a folder `examples` beside an installed
    # package may belong to another package.
    if not _INSTALLED_EXAMPLES.is_dir() and (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "examples"
    return _INSTALLED_EXAMPLES
