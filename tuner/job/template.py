"""Starting points for job files: the commented template, and the examples that ship."""

from __future__ import annotations

import difflib
import shlex
import tomllib
from pathlib import Path

from tuner.domain.errors import JobError

_FOLDER = Path(__file__).resolve().parent
_INSTALLED_EXAMPLES = _FOLDER.parent / "examples"
_CHECKOUT = _FOLDER.parent.parent


def job_template() -> str:
    """A job file that explains every table; it passes all checks unchanged."""
    return (_FOLDER / "template.toml").read_text(encoding="utf-8")


def example_names() -> list[str]:
    """Names of the examples that ship, sorted."""
    return sorted(path.stem for path in _folder().glob("*.toml"))


def example_text(name: str) -> str:
    """The job file of an example.

    Raises:
        JobError: No example has this name; the message lists those that exist and the nearest.
    """
    names = example_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise JobError(f"there is no example {name!r}{hint} Examples are {', '.join(names)}")
    return (_folder() / f"{name}.toml").read_text(encoding="utf-8")


def example_scripts(name: str) -> dict[str, str]:
    """The scripts that an example's command names, file name to text; none where it trains a Workload.

    Raises:
        JobError: No example has this name.
    """
    command = tomllib.loads(example_text(name)).get("workload", {}).get("command", "")
    files = [_folder() / word for word in shlex.split(command) if word.endswith(".py")]
    return {file.name: file.read_text(encoding="utf-8") for file in files if file.is_file()}


def _folder() -> Path:
    # The wheel carries the examples inside the package; a checkout has them at its root. Its pyproject.toml
    # identifies a checkout, since `examples` beside an installed package may belong to anybody.
    if not _INSTALLED_EXAMPLES.is_dir() and (_CHECKOUT / "pyproject.toml").is_file():
        return _CHECKOUT / "examples"
    return _INSTALLED_EXAMPLES
