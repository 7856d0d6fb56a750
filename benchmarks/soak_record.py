"""What a soak run saw: counts, figures and broken invariants, written as one JSON file."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO

from tuner.domain.checkpoints import write_atomically

#: Broken invariants that a file stores in full; the others are only counted.
MOST_SHOWN = 20
_PACKAGES = ("paceline", "torch", "numpy", "optuna", "sqlalchemy", "pydantic")
_SECONDS_BETWEEN_LINES = 10.0


@dataclass(kw_only=True)
class SoakRecord:
    """What one run did and what it found.

    Args:
        name: `load`, `kill` or `fuzz`.
        seed: Of all random draws.
        seconds: How long the run lasts.
        report: Takes progress lines.
        clock: Monotonic seconds.
    """

    name: str
    seed: int
    seconds: float
    report: Callable[[str], None] = print
    clock: Callable[[], float] = time.monotonic
    counts: Counter[str] = field(default_factory=Counter)
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started = self._reported_at = self.clock()

    @property
    def elapsed(self) -> float:
        """Seconds since the run started."""
        return self.clock() - self.started

    @property
    def is_over(self) -> bool:
        """Whether the time is up."""
        return self.elapsed >= self.seconds

    def breaks(self, invariant: str, **facts: Any) -> None:
        """Records a broken invariant with what is needed to reproduce it."""
        self.counts["broken"] += 1
        if len(self.broken) < MOST_SHOWN:
            self.broken.append({"invariant": invariant, "seed": self.seed, **facts})
        self.report(f"{self.name}: BROKEN: {invariant}: {str(facts)[:400]}")

    def progress(self, words: str = "") -> None:
        """Prints where the run stands, if the last line was a while ago."""
        now = self.clock()
        if now - self._reported_at < _SECONDS_BETWEEN_LINES:
            return
        self._reported_at = now
        counts = ", ".join(f"{name} {count}" for name, count in sorted(self.counts.items()))
        self.report(f"{self.name}: {self.elapsed:.0f} of {self.seconds:.0f} s; {words or counts}")

    def to_dict(self, command: str) -> dict[str, Any]:
        """The content of the result file."""
        return {
            "command": command,
            "seed": self.seed,
            "seconds": round(self.elapsed, 1),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
            "machine": machine(),
            "counts": dict(sorted(self.counts.items())),
            "figures": self.figures,
            "num_broken": self.counts["broken"],
            "broken": [_without_folders(facts) for facts in self.broken],
        }


def _without_folders(value: Any) -> Any:
    """The facts without folders of this machine; the input that was fed stays as it is."""
    if isinstance(value, str):
        return re.sub(r"(?<![\w:/.])/(?:[\w.+-]+/)+", ".../", value)
    if isinstance(value, dict):
        return {key: v if key == "input" else _without_folders(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(inner) for inner in value]
    return value


def machine() -> dict[str, Any]:
    """Facts of this machine that figures depend on."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "gibibytes": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "python": sys.implementation.name,
    }


def write_result(path: Path, content: dict[str, Any]) -> None:
    """Replaces a result file as a whole."""
    text = json.dumps(content, indent=1, ensure_ascii=True) + "\n"

    def write(file: BinaryIO) -> None:
        file.write(text.encode())

    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, write)


def quantile(values: Sequence[float], level: float) -> float | None:
    """The value below which this share of the values lies; None where there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return round(ordered[min(int(level * len(ordered)), len(ordered) - 1)], 5)
