"""Formulas of the strategies, as elementwise functions of parameter vectors.

Real ranks and emulated ranks (trained on this host under a virtual clock) call the same functions.

Symbols: theta, the parameters of one rank without Nesterov's look-ahead; c, the center, a common vector that
a server stores; p, the number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def moving_rate(beta: float, num_ranks: int) -> float:
    """Returns a = beta / p, the moving rate of elastic averaging (Zhang et al. 2015).

    In one exchange, the rank and the center each move towards the other by this share of their difference.

    Args:
        beta: Share of the difference by which the center moves in total when every rank exchanges once.
        num_ranks: p, number of ranks.
    """
    return beta / num_ranks


def elastic_force(theta: Tensor, center: Tensor, rate: float, out: Tensor) -> Tensor:
    """Returns u = a (theta - c), to be subtracted from theta and added to c (Zhang et al. 2015, eq. 5-6).

    Args:
        theta: Parameters of one rank, any shape.
        center: c, of the same shape.
        rate: a, in (0, 1].
        out: Buffer for u, of the same shape; it is returned.
    """
    torch.sub(theta, center, out=out)
    return out.mul_(rate)


def pulled(theta: Tensor, other: Tensor, out: Tensor) -> Tensor:
    """Returns (theta_j - theta) / 2; theta plus this change is the average of both (Jin et al. 2016).

    Args:
        theta: This rank's parameters, any shape.
        other: theta_j, the parameters that rank j published last, of the same shape.
        out: Buffer for the result, of the same shape; it is returned. May be `other`.
    """
    torch.sub(other, theta, out=out)
    return out.mul_(0.5)


def pushed(theta: Tensor, received: Sequence[Tensor], *, own_weight: int, out: Tensor) -> Tensor:
    """Returns the change that moves theta to the mean of theta and the received parameters (Jin et al. 2016).

    The mean is (w theta + sum of received) / (w + number received).

    Args:
        theta: This rank's parameters, any shape.
        received: Parameters that arrived from other ranks, of the same shape; may be empty.
        own_weight: w, 2 if this rank chose itself as its peer, else 1.
        out: Buffer for the result, of the same shape; it is returned. Zero if nothing arrived.
    """
    out.zero_()
    for vector in received:
        out.add_(vector)
    if not received:
        return out
    out.sub_(theta, alpha=len(received))
    return out.div_(own_weight + len(received))


def pair_move(active: Tensor, passive: Tensor, out: Tensor) -> Tensor:
    """Returns d = (theta_passive - theta_active) / 2, which moves two ranks to their average.

    The active rank adds d and the passive rank subtracts d. So the mean of both ranks does not change, even
    if the active rank has made steps in the meantime (AD-PSGD, Lian et al. 2018, algorithm 1).

    Args:
        active: Parameters of the active rank, which sent the request, any shape.
        passive: Parameters of the passive rank, which replies, of the same shape.
        out: Buffer for d, of the same shape; it is returned.
    """
    torch.sub(passive, active, out=out)
    return out.mul_(0.5)


def accumulated(theta: Tensor, taken: Tensor, out: Tensor) -> Tensor:
    """Returns the update of tau steps: theta minus theta before the steps (Downpour, Dean et al. 2012).

    Args:
        theta: Parameters of one rank after the steps, any shape.
        taken: Parameters that the steps started from, of the same shape.
        out: Buffer for the update, of the same shape; it is returned.
    """
    return torch.sub(theta, taken, out=out)


def outer_step(
    anchor: Tensor, average: Tensor, momentum_buffer: Tensor, *, learning_rate: float, momentum: float
) -> None:
    """Makes one Nesterov step of the outer optimizer (DiLoCo, Douillard et al. 2023).

    With the outer gradient g = anchor - average, the step is m <- mu m + g, anchor <- anchor - lr (g + mu m).
    With lr = 1 and mu = 0, the anchor becomes the average, as in plain local SGD.

    Args:
        anchor: Parameters after the last outer step; changed in place.
        average: Mean of all ranks' parameters; overwritten by g.
        momentum_buffer: m, the momentum buffer of the outer optimizer; changed in place.
        learning_rate: lr, the learning rate of the outer step.
        momentum: mu, the momentum of the outer step.
    """
    gradient = torch.sub(anchor, average, out=average)
    momentum_buffer.mul_(momentum).add_(gradient)
    anchor.sub_(gradient, alpha=learning_rate)
    anchor.sub_(momentum_buffer, alpha=learning_rate * momentum)
