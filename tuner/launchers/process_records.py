"""Identifies a process by its number and start time, since a later process may have the same number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class ProcessRecord:
    """Number and start time of a process; a later process that has the same number has another start time.

    Args:
        process: Process number.
        started: Start time, in clock ticks of the kernel since boot.
    """

    process: int
    started: int

    @classmethod
    def of(cls, process: int) -> ProcessRecord | None:
        """Returns the record of a running process; None if it has ended or the system has no /proc."""
        try:
            fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        # Fields 3 (state) and 22 (start time) of proc(5), counted from behind the command's name.
        return None if fields[0] in "ZX" else cls(process=process, started=int(fields[19]))

    @property
    def is_alive(self) -> bool:
        """Whether the process of this record still runs."""
        return ProcessRecord.of(self.process) == self
