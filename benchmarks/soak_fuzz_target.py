"""A place where the user's data enter, and the command line called in this process."""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cli

EXAMPLES = Path(__file__).parents[1] / "examples"


Problem = tuple[str, dict[str, Any]]


class Target(ABC):
    """A place where the user's data enter.

    Args:
        folder: For its files; the current folder while it is checked.
    """

    name: str
    #: How many inputs it gets in turn.
    weight = 4
    #: Whether a broken input is worth storing; else seed and iteration make it again.
    is_short = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def make(self, rng: random.Random) -> bytes:
        """A random input."""

    @abstractmethod
    def problems(self, data: bytes) -> Iterator[Problem]:
        """The invariants that an input breaks. What it raises is a broken one too."""


def call_cli(*arguments: str) -> tuple[int, str, str]:
    """Calls the command in this process: exit code, stdout, stderr. What it does not handle is raised."""
    out, err = io.StringIO(), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            cli.main(list(arguments))
        except SystemExit as ending:
            code = ending.code
    return (code if isinstance(code, int) else 1), out.getvalue(), err.getvalue()
