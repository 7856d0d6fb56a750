"""Caches emulations in memory, so that the next slice of a probe need not load a checkpoint.

With 128 virtual ranks, creating the models and loading a checkpoint takes about 2 s.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tuner.emulation import Emulation, Trained

#: `_MOST_BYTES`: largest memory of all cached emulations, in bytes. The memory of an emulation is estimated
#: as four values per parameter: the parameter, its gradient and two values of the optimizer.
_MOST_BYTES = 1 << 30
_VALUES_PER_PARAMETER = 4


@dataclass(frozen=True, kw_only=True)
class _Stored:
    run: Emulation
    checkpoint: Path
    random: Tensor
    num_bytes: int


class WarmRuns:
    """Caches the emulation of each probe at the probe's newest checkpoint, by the folder of the probe.

    If the cached emulations need too much memory, the oldest ones are removed.

    Args:
        most_bytes: Largest memory of all cached emulations, in bytes.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._stored: OrderedDict[Path, _Stored] = OrderedDict()

    def keep(self, folder: Path, run: Emulation, checkpoint: Path) -> None:
        """Caches an emulation that was just saved, unless it is too large.

        Args:
            folder: Folder of the probe; the key in the cache.
            run: The emulation, at the end of a slice.
            checkpoint: Path of the checkpoint to which the emulation was just saved.
        """
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
        """Removes the cached emulation of a probe from the cache, and returns it if it can be used.

        It can be used if it is at the newest checkpoint and has the required settings. Otherwise, and if
        nothing is cached, the result is None.

        Args:
            folder: Folder of the probe; the key in the cache.
            trained: Settings that the emulation must have.
            newest: Path of the probe's newest checkpoint; None if there is none.
        """
        stored = self._stored.pop(folder, None)
        if stored is None or stored.checkpoint != newest or not _is_of(stored.run.trained, trained):
            return None
        torch.set_rng_state(stored.random)
        stored.run.begin_slice()
        return stored.run


def _is_of(run: Trained, asked: Trained) -> bool:
    """Whether a cached emulation has the workload, configuration, cluster and seed that a slice needs.

    Args:
        run: Settings of the cached emulation.
        asked: Settings that the slice needs.
    """
    same = run.workload is asked.workload and run.configuration == asked.configuration
    return same and (run.num_ranks, run.cluster, run.seed) == (asked.num_ranks, asked.cluster, asked.seed)
