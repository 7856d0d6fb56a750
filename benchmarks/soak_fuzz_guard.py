"""Rules for every input of the fuzzer: memory below 2 GiB, no change outside the case's folder."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Memory that all inputs together may use in addition to the memory in use before, in bytes.
_MOST_BYTES = 2 * 2**30
#: Maps each audit event that changes files to the indexes of its arguments that are paths.
_CHANGES = {
    "os.mkdir": (0,),
    "os.remove": (0,),
    "os.rmdir": (0,),
    "os.rename": (0, 1),
    "os.link": (1,),
    "os.symlink": (1,),
    "os.truncate": (0,),
    "sqlite3.connect": (0,),
}
#: Words that tell users what to do or what is allowed.
_REMEDY = re.compile(
    r"\b(add|allowed|at least|at most|change|choose|did you mean|fetch|give|install|is missing|list|lower|"
    r"must|name|needs?|place|put|raise|remove|save|set|shorten|state|upgrade|use|write)\b",
    re.IGNORECASE,
)

_guarded: list[str] = []
_outside: list[str] = []
_is_installed = False


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Context manager in which an allocation raises `MemoryError` above the limit for all inputs."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    resource.setrlimit(resource.RLIMIT_AS, (in_use + _MOST_BYTES, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@contextlib.contextmanager
def files_outside(folder: Path) -> Iterator[list[str]]:
    """Context manager that lists the files outside a folder that are written, made or removed meanwhile."""
    global _is_installed
    if not _is_installed:
        sys.addaudithook(_audit)  # cannot be removed
        _is_installed = True
    _outside.clear()
    _guarded.append(os.path.realpath(folder))
    try:
        yield _outside
    finally:
        _guarded.clear()


def names_a_remedy(message: str) -> bool:
    """Whether a message says what is allowed or what to do."""
    return bool(_REMEDY.search(message))


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if not _guarded:
        return
    if event == "open":
        is_change = bool((arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        paths = arguments[:1] if is_change else ()
    else:
        paths = tuple(arguments[index] for index in _CHANGES.get(event, ()))
    for path in paths:
        if isinstance(path, str | bytes) and path and os.fsdecode(path) != ":memory:":
            named = os.fsdecode(path).removeprefix("file:").partition("?")[0]
            # Events other than "open" concern a link itself, not the file that it leads to.
            is_link = event not in ("open", "sqlite3.connect") and Path(named).is_symlink()
            full = os.path.realpath(Path(named).parent if is_link else named)
            is_allowed = full == os.devnull or "__pycache__" in full
            if not is_allowed and os.path.commonpath([full, _guarded[0]]) != _guarded[0]:
                _outside.append(full)
