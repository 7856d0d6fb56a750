"""Identifies a process by its number and start time, so that a later process is not taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """Identifies a process; a later process with the same number is another one.

    Args:
        process: Its number.
        started: When it started, in the kernel's clock ticks since boot.
    """

    process: int
    started: int

    @classmethod
    def of(cls, process: int) -> ProcessRecord | None:
        """The record of a living process; None where it is dead or the system has no /proc."""
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # Fields 3 (state) and 22 (start time) of proc(5), counted from behind the command's name.
        return None if fields[0] in "ZX" else cls(process=process, started=int(fields[19]))

    @property
    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessRecord.of(self.process) == self
