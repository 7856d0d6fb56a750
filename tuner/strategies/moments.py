"""Timestamps on the clock that the work itself runs on: the host's, or an accelerator's stream."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A point in time, taken without waiting for the device.

    Args:
        seconds: On the host's clock.
        event: What the device's stream reaches when its work up to here is done; None on the CPU.
    """

    seconds: float
    event: Any = None


def moment(device: torch.device) -> Moment:
    """Now: on the CPU the host's clock, on an accelerator the end of its stream's work so far."""
    if device.type == "cpu":
        return Moment(seconds=time.perf_counter())
    event = torch.Event(device, enable_timing=True)
    event.record(torch.accelerator.current_stream(device))
    return Moment(seconds=time.perf_counter(), event=event)


def seconds_between(start: Moment, end: Moment) -> float:
    """Seconds from one moment to a later one; on an accelerator it waits until `end` was reached."""
    if start.event is None or end.event is None:
        return end.seconds - start.seconds
    end.event.synchronize()
    return float(start.event.elapsed_time(end.event)) / 1000.0


def wait_for(device: torch.device) -> None:
    """Waits until an accelerator has done all it was given; the CPU has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
