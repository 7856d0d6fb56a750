"""Batch-norm statistics for parameters that no rank has trained with: an average, a centre."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from tuner.domain.data_order import fetch
from tuner.domain.workload import Workload
from tuner.probes.ranks.random_state import undisturbed

_BATCHES = 8
_LARGEST_BATCH = 128


@contextmanager
def fresh_batch_norm(
    model: nn.Module, workload: Workload, data: Dataset[Any], device: torch.device, seed: int
) -> Iterator[None]:
    """Within it, running statistics are those of the present parameters on some training data.

    As `torch.optim.swa_utils.update_bn` does, by a plain mean over a few batches (Izmailov et al. 2018,
    section 3.3). Models without such statistics are left alone. Afterwards all buffers are as before.

    Args:
        model: The model, with the parameters that are to be scored.
        workload: Its `loss` runs the model forward.
        data: The training data.
        device: Where the model is.
        seed: Of the draw of samples.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        yield
        return
    kept = [(buffer, buffer.clone()) for buffer in model.buffers()]
    momenta = [norm.momentum for norm in norms]
    was_training = model.training
    size = min(_LARGEST_BATCH, len(data))  # type: ignore[arg-type]
    rng = np.random.default_rng((seed, size))
    try:
        with torch.no_grad(), undisturbed(device):
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over all batches
            model.train()
            for _ in range(_BATCHES):
                chosen = rng.choice(len(data), size, replace=False)  # type: ignore[arg-type]
                workload.loss(model, fetch(data, chosen.tolist(), device))
        model.train(was_training)
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        with torch.no_grad():
            for buffer, value in kept:
                buffer.copy_(value)
