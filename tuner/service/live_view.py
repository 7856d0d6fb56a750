"""Shows the progress of a search on a terminal."""

from __future__ import annotations

import time

from rich.console import Console as Terminal
from rich.status import Status
from rich.text import Text

from tuner.domain.safe_text import printable
from tuner.search.events import SearchEvent
from tuner.service.console import progress_words


class RichConsole:
    """Prints events as lines and, below the lines, a live line for each running slice."""

    def __init__(self) -> None:
        self._terminal = Terminal(stderr=True, highlight=False)
        self._status: Status | None = None
        #: Map the probe id of each running slice to its description, and to its live line.
        self._what: dict[int | None, str] = {}
        self._stands: dict[int | None, str] = {}
        self._started = time.monotonic()

    def show(self, event: SearchEvent) -> None:
        """Prints the event as a line, or shows the progress of a slice in its live line."""
        if event.kind == "progress" and event.measurement is not None:
            what = self._what.get(event.probe_id, "")
            self._stands[event.probe_id] = f"{what}: {progress_words(event.measurement)}"
            self._live()
            return
        text = printable(event.text)
        if event.num_slots > 1 and event.probe_id is not None:
            text = f"probe {event.probe_id}: {text}"
        if event.kind == "decision":
            self._what[event.probe_id] = text.partition(" - ")[0]
        if event.kind == "slice" and self._stands.pop(event.probe_id, None) is not None:
            self._live()
        style = {"warning": "yellow", "end": "bold", "decision": "cyan"}.get(event.kind, "")
        self._terminal.print(
            f"{time.monotonic() - self._started:6.1f} s  {text}", style=style or None, markup=False
        )

    def _live(self) -> None:
        """Updates the live lines of all running slices."""
        text = Text(printable("\n".join(self._stands.values())))
        if self._status is None:
            self._status = self._terminal.status(text)
            self._status.start()
        self._status.update(text)

    def close(self) -> None:
        """Removes the live lines."""
        if self._status is not None:
            self._status.stop()
            self._status = None
