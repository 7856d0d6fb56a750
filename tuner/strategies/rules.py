"""Update rules on flat parameter vectors, independent of how messages travel.

Real ranks and emulated ones run these same functions. All work elementwise, so that one
call on stacked vectors `(num_ranks, num_parameters)` does for many ranks what it does for one.

Legend: theta parameters of one rank (the plain point, not the look-ahead that Nesterov's optimizer
stores); c the center; p ranks; tau steps between two exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def moving_rate(beta: float, num_ranks: int) -> float:
    """a = beta / p, how far both sides of an elastic exchange move (Zhang, Choromanska, LeCun 2015)."""
    return beta / num_ranks


def elastic_force(theta: Tensor, center: Tensor, rate: float, out: Tensor) -> Tensor:
    """u = a (theta - c): then theta -= u and c += u, so that their sum stays (Zhang et al. 2015, eq. 5-6).

    Args:
        theta: Parameters, any shape.
        center: c, of the same shape.
        rate: a, in (0, 1].
        out: Where u is written.
    """
    torch.sub(theta, center, out=out)
    return out.mul_(rate)


def pulled(theta: Tensor, other: Tensor, out: Tensor) -> Tensor:
    """(theta_j - theta) / 2: added to theta it gives the average of both (Jin et al. 2016).

    Args:
        theta: This rank's parameters, any shape.
        other: theta_j as last published.
        out: Where it is written; may be `other`.
    """
    torch.sub(other, theta, out=out)
    return out.mul_(0.5)


def pushed(theta: Tensor, received: Sequence[Tensor], *, own_weight: int, out: Tensor) -> Tensor:
    """What is added to theta to give (w theta + sum of received) / (w + number received) (Jin et al. 2016).

    Args:
        theta: This rank's parameters.
        received: What arrived, at least one unless nothing is to be changed.
        own_weight: w, 2 where this rank drew itself, else 1.
        out: Where to write it; zero if nothing arrived.
    """
    out.zero_()
    for vector in received:
        out.add_(vector)
    if not received:
        return out
    out.sub_(theta, alpha=len(received))
    return out.div_(own_weight + len(received))


def pair_move(active: Tensor, passive: Tensor, out: Tensor) -> Tensor:
    """d = (theta_passive - theta_active) / 2: the active adds d, the passive subtracts it.

    The mean of both stays, even where the active has moved on since it sent its parameters (AD-PSGD, Lian et
    al. 2018, algorithm 1).
    """
    torch.sub(passive, active, out=out)
    return out.mul_(0.5)


def accumulated(theta: Tensor, taken: Tensor, out: Tensor) -> Tensor:
    """theta - what was taken from the server: the update of tau steps (Downpour, Dean et al. 2012)."""
    return torch.sub(theta, taken, out=out)


def outer_step(
    anchor: Tensor, average: Tensor, momentum_buffer: Tensor, *, learning_rate: float, momentum: float
) -> None:
    """One Nesterov step of the outer optimizer on anchor - average (DiLoCo, Douillard et al. 2023).

    g = anchor - average; m <- mu m + g; anchor <- anchor - lr (g + mu m). With lr 1 and mu 0 the anchor
    becomes the average, which is plain local SGD.

    Args:
        anchor: Parameters after the last outer step; changed in place.
        average: Mean of all ranks' parameters now; overwritten.
        momentum_buffer: m; changed in place.
        learning_rate: Outer rate.
        momentum: mu, of the outer step.
    """
    gradient = torch.sub(anchor, average, out=average)
    momentum_buffer.mul_(momentum).add_(gradient)
    anchor.sub_(gradient, alpha=learning_rate)
    anchor.sub_(momentum_buffer, alpha=learning_rate * momentum)
