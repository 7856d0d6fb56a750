"""Shows the progress of a search: live lines on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console as Terminal
from rich.status import Status
from rich.text import Text

from tuner.domain.measurement import Measurement
from tuner.domain.safe_text import printable
from tuner.search.events import SearchEvent, clock_words

#: Seconds between two progress lines of a slice when the output is not a terminal.
_PLAIN_EVERY_SECONDS = 15.0


class Console(Protocol):
    """Shows the events of a search to the user."""

    def show(self, event: SearchEvent) -> None:
        """Shows one event of the search, such as a decision, a warning or the progress of a slice."""

    def close(self) -> None:
        """Removes the live lines from the terminal, if the console shows any."""


class PlainConsole:
    """Writes one plain line for each event. Lines on the progress of a slice are at least 15 seconds apart.

    Args:
        write: Function that is called with each line.
        clock: Function that returns the seconds on a monotonic clock.
    """

    def __init__(self, write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._started = clock()
        self._said: dict[int | None, float] = {}
        self._said_last = self._started

    def show(self, event: SearchEvent) -> None:
        """Writes the event as a line. Progress of a slice is skipped for 15 seconds after its last line."""
        now = self._clock()
        if event.kind == "progress":
            # The interval is counted for each slice, so the progress of every concurrent slice is shown.
            said = self._said_last if event.num_slots == 1 else self._said.setdefault(event.probe_id, now)
            if now - said < _PLAIN_EVERY_SECONDS or event.measurement is None:
                return
            text = progress_words(event.measurement)
        else:
            text = event.text
        self._said[event.probe_id] = self._said_last = now
        if event.num_slots > 1 and event.probe_id is not None:
            text = f"probe {event.probe_id}: {text}"
        self._write(f"[{now - self._started:6.1f} s] {event.kind}: {text}")

    def close(self) -> None:
        """Does nothing, since plain lines need no clean-up."""


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


def progress_words(measurement: Measurement) -> str:
    """Describes the progress of a slice: step, samples, training seconds and last score."""
    if measurement.waiting:
        return f"waiting: {measurement.waiting}"
    words = f"step {measurement.step}, {measurement.samples} samples, "
    words += clock_words(measurement, measurement.training_seconds)
    if measurement.curve:
        words += f", score {measurement.curve[-1].value:.4g}"
    return words
