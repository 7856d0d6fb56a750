"""Cache of emulated runs, so that the next slice does not have to load its checkpoint.

With 128 virtual ranks, making the models and loading a checkpoint takes about 2 s.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tuner.emulation import Emulation, Trained

#: Memory of all cached runs at most, bytes. Parameters, gradients and two values of the optimizer for each
#: parameter are counted.
_MOST_BYTES = 1 << 30
_VALUES_PER_PARAMETER = 4


@dataclass(frozen=True, kw_only=True)
class _Stored:
    run: Emulation
    checkpoint: Path
    random: Tensor
    num_bytes: int


class WarmRuns:
    """Runs at their newest checkpoint, by the folder of their probe; the oldest are dropped first."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._stored: OrderedDict[Path, _Stored] = OrderedDict()

    def keep(self, folder: Path, run: Emulation, checkpoint: Path) -> None:
        """Caches a run that was just saved, unless it is too large."""
        self._stored.pop(folder, None)
        num_bytes = _VALUES_PER_PARAMETER * sum(
            parameter.numel() * parameter.element_size()
            for rank in run.ranks
            for parameter in rank.model.parameters()
        )
        if num_bytes > self._most_bytes:
            return
        random = torch.get_rng_state()
        self._stored[folder] = _Stored(run=run, checkpoint=checkpoint, random=random, num_bytes=num_bytes)
        while sum(stored.num_bytes for stored in self._stored.values()) > self._most_bytes:
            self._stored.popitem(last=False)

    def take(self, folder: Path, trained: Trained, newest: Path | None) -> Emulation | None:
        """Removes and returns the run of a probe if it is at the newest checkpoint.

        Args:
            folder: The folder of the probe.
            trained: The training that the run has to be of.
            newest: The newest checkpoint of the probe; None if there is none.
        """
        stored = self._stored.pop(folder, None)
        if stored is None or stored.checkpoint != newest or not _is_of(stored.run.trained, trained):
            return None
        torch.set_rng_state(stored.random)
        stored.run.begin_slice()
        return stored.run


def _is_of(run: Trained, asked: Trained) -> bool:
    """Whether a cached run is of the same training."""
    same = run.workload is asked.workload and run.configuration == asked.configuration
    return same and (run.num_ranks, run.cluster, run.seed) == (asked.num_ranks, asked.cluster, asked.seed)
