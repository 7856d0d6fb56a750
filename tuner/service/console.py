"""Shows the progress of a search as lines of text or JSON, where no live view is possible or wanted."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Protocol

from tuner.domain.job_queue import Usage
from tuner.domain.measurement import Measurement
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


class QuietConsole:
    """Passes only warnings on to another console.

    Args:
        console: The other console.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def show(self, event: SearchEvent) -> None:
        """Shows a warning, and ignores all other events."""
        if event.kind == "warning":
            self._console.show(event)

    def close(self) -> None:
        """Closes the other console."""
        self._console.close()


class JsonConsole:
    """Writes one JSON object for each event. Progress of a slice is written at most every 15 seconds.

    Args:
        write: Function that is called with each object.
        usage: Function that returns what the search has used so far; None if nothing is known yet.
        is_quiet: Whether only warnings are written.
        clock: Function that returns the seconds since the Unix epoch.
    """

    def __init__(
        self,
        write: Callable[[dict[str, Any]], None],
        usage: Callable[[], Usage | None],
        *,
        is_quiet: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._write = write
        self._usage = usage
        self._is_quiet = is_quiet
        self._clock = clock
        self._said: dict[int | None, float] = {}

    def show(self, event: SearchEvent) -> None:
        """Writes the event as a JSON object."""
        now = self._clock()
        if self._is_quiet and event.kind != "warning":
            return
        if event.kind == "progress":
            if now - self._said.setdefault(event.probe_id, now) < _PLAIN_EVERY_SECONDS:
                return
            self._said[event.probe_id] = now
        measurement, usage = event.measurement, self._usage()
        configuration = event.configuration if measurement is None else measurement.configuration
        text = event.text
        if event.kind == "progress" and measurement is not None:
            text = progress_words(measurement)
        self._write(
            {
                "time": round(now, 3),
                "kind": event.kind,
                "text": text,
                "probe": event.probe_id,
                "configuration": None if configuration is None else configuration.as_dict(),
                "measurement": None if measurement is None else measurement_summary(measurement),
                "spent": None if usage is None else asdict(usage),
            }
        )

    def close(self) -> None:
        """Does nothing, since lines need no clean-up."""


def measurement_summary(measurement: Measurement) -> dict[str, Any]:
    """Returns the numbers of a slice for programs; values that are not finite are None."""
    point = measurement.curve[-1] if measurement.curve else None
    numbers = {
        "training_seconds": measurement.training_seconds,
        "charged_seconds": measurement.charged_seconds,
        "charged_dollars": measurement.charged_dollars,
        "score": None if point is None else point.value,
    }
    return {
        "outcome": measurement.outcome.value,
        "purpose": measurement.purpose.value,
        "step": measurement.step,
        "samples": measurement.samples,
        **{
            name: value if value is not None and math.isfinite(value) else None
            for name, value in numbers.items()
        },
        "score_samples": None if point is None else point.samples,
        "waiting": measurement.waiting or None,
        "error": measurement.error,
    }


def progress_words(measurement: Measurement) -> str:
    """Describes the progress of a slice: step, samples, training seconds and last score."""
    if measurement.waiting:
        return f"waiting: {measurement.waiting}"
    words = f"step {measurement.step}, {measurement.samples} samples, "
    words += clock_words(measurement, measurement.training_seconds)
    if measurement.curve:
        words += f", score {measurement.curve[-1].value:.4g}"
    return words
