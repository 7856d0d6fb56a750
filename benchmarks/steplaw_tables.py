"""Reads the table of the Step Law (Li et al. 2025): final losses of language models by batch and rate."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np

#: Tokens of one sequence, the unit of a batch here.
SEQUENCE_TOKENS = 2048
#: Between two budgets, loss is a straight line in tokens^-0.28, the exponent of data in Hoffmann et al. 2022.
_DATA_EXPONENT = 0.28

Losses = dict[int, dict[float, float]]
"""Batch in sequences, ascending -> budget in sequences, ascending -> final loss at the best learning rate."""


def read_losses(path: Path) -> dict[int, Losses]:
    """Parameters of the model -> its losses. Every loss is that of a finished, annealed run."""
    found: dict[int, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    with path.open(newline="") as file:
        for row in csv.DictReader(file):
            budgets = found[int(row["parameters"])][round(int(row["batch_tokens"]) / SEQUENCE_TOKENS)]
            budget, loss = float(row["tokens"]) / SEQUENCE_TOKENS, float(row["loss"])
            budgets[budget] = min(budgets.get(budget, np.inf), loss)
    return {
        parameters: {batch: dict(sorted(losses[batch].items())) for batch in sorted(losses)}
        for parameters, losses in sorted(found.items())
    }


def sequences_to(losses: Losses, target: float) -> dict[int, float]:
    """Batch -> sequences to a loss, for the batches whose budgets lie on both sides of it.

    Args:
        losses: Of one model.
        target: The loss to reach.
    """
    found = {batch: _crossing(budgets, target) for batch, budgets in losses.items()}
    return {batch: sequences for batch, sequences in found.items() if sequences is not None}


def _crossing(budgets: Mapping[float, float], target: float) -> float | None:
    pairs = list(budgets.items())
    for (fewer, above), (more, below) in pairwise(pairs):
        if above >= target > below:
            share = (above - target) / (above - below)
            inverse = (1 - share) * fewer**-_DATA_EXPONENT + share * more**-_DATA_EXPONENT
            return float(inverse ** (-1 / _DATA_EXPONENT))
    return None
