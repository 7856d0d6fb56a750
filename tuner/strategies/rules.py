"""Formulas of the strategies, as elementwise functions of parameter vectors.

Real and emulated ranks call the same functions.

Legend: theta, parameters of one rank without Nesterov's look-ahead; c, the center; p, number of ranks.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def moving_rate(beta: float, num_ranks: int) -> float:
    """a = beta / p, the rate by which rank and center move in an elastic exchange (Zhang et al. 2015)."""
    return beta / num_ranks


def elastic_force(theta: Tensor, center: Tensor, rate: float, out: Tensor) -> Tensor:
    """u = a (theta - c), subtracted from theta and added to c (Zhang et al. 2015, eq. 5-6).

    Args:
        theta: Parameters, any shape.
        center: c, of the same shape.
        rate: a, in (0, 1].
        out: u is written here and returned.
    """
    torch.sub(theta, center, out=out)
    return out.mul_(rate)


def pulled(theta: Tensor, other: Tensor, out: Tensor) -> Tensor:
    """(theta_j - theta) / 2, which added to theta gives the average of both (Jin et al. 2016).

    Args:
        theta: This rank's parameters, any shape.
        other: theta_j, as last published.
        out: The result is written here and returned; may be `other`.
    """
    torch.sub(other, theta, out=out)
    return out.mul_(0.5)


def pushed(theta: Tensor, received: Sequence[Tensor], *, own_weight: int, out: Tensor) -> Tensor:
    """The change of theta that gives (w theta + sum received) / (w + number received) (Jin et al. 2016).

    Args:
        theta: This rank's parameters, any shape.
        received: Parameters that arrived; may be empty.
        own_weight: w, 2 if this rank drew itself, else 1.
        out: The result is written here and returned; zero if nothing arrived.
    """
    out.zero_()
    for vector in received:
        out.add_(vector)
    if not received:
        return out
    out.sub_(theta, alpha=len(received))
    return out.div_(own_weight + len(received))


def pair_move(active: Tensor, passive: Tensor, out: Tensor) -> Tensor:
    """d = (theta_passive - theta_active) / 2, added by the active and subtracted by the passive rank.

    The mean of both ranks stays, even if the active one has made steps since (AD-PSGD, Lian et al. 2018,
    algorithm 1).
    """
    torch.sub(passive, active, out=out)
    return out.mul_(0.5)


def accumulated(theta: Tensor, taken: Tensor, out: Tensor) -> Tensor:
    """The update of tau steps: theta minus the parameters taken before (Downpour, Dean et al. 2012)."""
    return torch.sub(theta, taken, out=out)


def outer_step(
    anchor: Tensor, average: Tensor, momentum_buffer: Tensor, *, learning_rate: float, momentum: float
) -> None:
    """One Nesterov step of the outer optimizer (DiLoCo, Douillard et al. 2023).

    g = anchor - average; m <- mu m + g; anchor <- anchor - lr (g + mu m). With lr = 1 and mu = 0 the anchor
    becomes the average, as in plain local SGD.

    Args:
        anchor: Parameters after the last outer step; changed in place.
        average: Mean of all ranks' parameters; overwritten.
        momentum_buffer: m; changed in place.
        learning_rate: lr, of the outer step.
        momentum: mu, of the outer step.
    """
    gradient = torch.sub(anchor, average, out=average)
    momentum_buffer.mul_(momentum).add_(gradient)
    anchor.sub_(gradient, alpha=learning_rate)
    anchor.sub_(momentum_buffer, alpha=learning_rate * momentum)
