"""Timestamps on the host's clock, or on the stream of an accelerator."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A timestamp that is taken without waiting for the device.

    Args:
        seconds: Time on the host's clock, seconds.
        event: Event recorded on the accelerator's stream; None on the CPU.
    """

    seconds: float
    event: Any = None


def moment(device: torch.device) -> Moment:
    """Returns a timestamp: now, or the time when the accelerator has done the work queued so far."""
    if device.type == "cpu":
        return Moment(seconds=time.perf_counter())
    event = torch.Event(device, enable_timing=True)
    event.record(torch.accelerator.current_stream(device))
    return Moment(seconds=time.perf_counter(), event=event)


def seconds_between(start: Moment, end: Moment) -> float:
    """Returns the seconds between two timestamps; on an accelerator, waits until it has reached `end`."""
    if start.event is None or end.event is None:
        return end.seconds - start.seconds
    end.event.synchronize()
    return float(start.event.elapsed_time(end.event)) / 1000.0


def wait_for(device: torch.device) -> None:
    """Waits until an accelerator has finished its work; does nothing on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
