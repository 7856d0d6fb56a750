"""What a check measured, and whether it stayed within its limits."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.domain.checkpoints import write_atomically


class SkippedError(Exception):
    """The check cannot run here; the message says what is missing."""


@dataclass(kw_only=True)
class Findings:
    """Figures of one check; they are saved after each, so that a check that is killed leaves what it has.

    Args:
        device: `cuda` or `cpu`.
        folder: For whatever the check writes; empty at first.
        save: Called with everything found so far.
    """

    device: str
    folder: Path
    save: Callable[[dict[str, Any]], None] = lambda _: None
    figures: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, str] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    @property
    def is_cpu(self) -> bool:
        """Whether the small sizes are wanted."""
        return self.device == "cpu"

    def budget(self, on_device: str) -> str:
        """Budget of a job's search: on the CPU a longer one, since its cores may be shared."""
        return "3m" if self.is_cpu else on_device

    def note(self, name: str, value: Any) -> None:
        """Records a figure that no limit holds for."""
        self.figures[name] = _plain(value)
        self.save(self.found())

    def expect(self, name: str, is_so: bool, words: str = "") -> None:
        """Records a fact that must be so.

        Args:
            name: What must be so.
            is_so: Whether it is.
            words: What is said where it is not.
        """
        self.limits[name] = "must be true"
        if not is_so:
            self.failures.append(f"{name} is false{': ' + words if words else ''}")
        self.note(name, bool(is_so))

    def require(
        self, name: str, value: float, *, at_least: float | None = None, at_most: float | None = None
    ) -> None:
        """Records a figure that has to lie within limits; one that is not a number never does."""
        limits = []
        if at_least is not None:
            limits.append(f">= {at_least:g}")
        if at_most is not None:
            limits.append(f"<= {at_most:g}")
        self.limits[name] = " and ".join(limits)
        low = -math.inf if at_least is None else at_least
        high = math.inf if at_most is None else at_most
        if not low <= value <= high:
            self.failures.append(f"{name} is {value:g}, allowed is {self.limits[name]}")
        self.note(name, value)

    def found(self) -> dict[str, Any]:
        """Figures, the limits they were held to, and what lay beyond."""
        return {"figures": self.figures, "limits": self.limits, "failures": self.failures}


def save_json(path: Path, content: Any) -> None:
    """Writes JSON so that the file is there whole or not at all."""
    text = json.dumps(content, indent=1).encode()
    write_atomically(path, lambda file: _written(file, text))


def _written(file: Any, text: bytes) -> None:
    file.write(text)


def _plain(value: Any) -> Any:
    """The value with floats of five digits; JSON has no word for what is not finite."""
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else str(value)
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value
