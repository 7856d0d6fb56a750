"""Timestamps on the host's clock, or on the stream of an accelerator."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A timestamp, taken without waiting for the device.

    Args:
        seconds: Seconds on the host's clock.
        event: The event that the device's stream has recorded; None on the CPU.
    """

    seconds: float
    event: Any = None


def moment(device: torch.device) -> Moment:
    """The present moment: on an accelerator, when its stream has finished its work so far."""
    if device.type == "cpu":
        return Moment(seconds=time.perf_counter())
    event = torch.Event(device, enable_timing=True)
    event.record(torch.accelerator.current_stream(device))
    return Moment(seconds=time.perf_counter(), event=event)


def seconds_between(start: Moment, end: Moment) -> float:
    """Seconds between two moments; on an accelerator, waits until `end` is reached."""
    if start.event is None or end.event is None:
        return end.seconds - start.seconds
    end.event.synchronize()
    return float(start.event.elapsed_time(end.event)) / 1000.0


def wait_for(device: torch.device) -> None:
    """Waits until an accelerator has finished its work; does nothing on the CPU."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
