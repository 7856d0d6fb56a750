"""How busy an NVIDIA device is meanwhile, as the driver's own tool samples it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import fmean

_QUERY = [
    "--query-gpu=utilization.gpu,memory.used",
    "--format=csv,noheader,nounits",
    "-i",
    "0",
    "-lms",
    "250",
]


class DeviceLoad:
    """What was sampled.

    Attributes:
        utilizations: Percent of time in which any kernel ran, a sample each quarter of a second.
        memory_mebibytes: Memory of the device that all processes held, likewise.
    """

    def __init__(self) -> None:
        self.utilizations: list[float] = []
        self.memory_mebibytes: list[float] = []

    def busiest_share(self) -> float:
        """Mean utilization of the busiest half of the samples, 0 to 1: start-up and scoring are left out."""
        ordered = sorted(self.utilizations, reverse=True)
        return fmean(ordered[: max(1, len(ordered) // 2)]) / 100 if ordered else 0.0


@contextmanager
def sampled_load() -> Iterator[DeviceLoad]:
    """Samples while its block runs; nothing is sampled where the tool is missing."""
    load = DeviceLoad()
    tool = shutil.which("nvidia-smi")
    if tool is None:
        yield load
        return
    with tempfile.TemporaryFile("w+") as lines:
        sampler = subprocess.Popen(
            [tool, *_QUERY], stdin=subprocess.DEVNULL, stdout=lines, stderr=subprocess.DEVNULL
        )
        try:
            yield load
        finally:
            sampler.kill()
            sampler.wait()
            lines.seek(0)
            for line in lines:
                parts = line.split(",")
                if len(parts) == 2 and all(part.strip().isdigit() for part in parts):
                    load.utilizations.append(float(parts[0]))
                    load.memory_mebibytes.append(float(parts[1]))
