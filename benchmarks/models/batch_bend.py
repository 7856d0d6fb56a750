"""How compute departs from a straight line in the batch: a Gaussian process over log batch, as parameters."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from tuner.analytic.regression import Parameter

Array = npt.NDArray[np.float64]

#: Standard deviation of log compute around a0 + a1 b, and how fast it turns in log b. A straight line is off
#: by up to a quarter at single batches (caches, kernels, sequences padded to the longest); 8% is typical.
_SD = 0.08
_LENGTH = 0.7
_JITTER = 1e-4


@dataclass(frozen=True, kw_only=True)
class BatchBend:
    """A Gaussian process that is known through its values at the batches that were timed.

    It is written as independent standard parameters, so that it bends compute inside of a law and not the
    step as a whole: where communication dominates, compute's bends do not show.

    Args:
        log_batches: Logarithms of the different batches a rank that were timed, `(num_batches,)`.
    """

    log_batches: Array

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """One standard normal for each batch that was timed."""
        names = [f"bend of compute at {np.exp(value):.0f} samples" for value in self.log_batches]
        return tuple(Parameter(name=name, mean=0.0, sd=1.0) for name in names)

    def design(self, log_batch: Array) -> Array:
        """Matrix `(num, num_batches)` that takes the parameters to the bend of log compute."""
        if not len(self.log_batches):
            return np.zeros((len(log_batch), 0))
        return np.asarray(_SD * _kernel(log_batch, self.log_batches) @ self._whitening, dtype=float)

    @cached_property
    def _whitening(self) -> Array:
        """Inverse of the kernel's transposed Cholesky factor, `(num_batches, num_batches)`."""
        kernel = _kernel(self.log_batches, self.log_batches) + _JITTER * np.eye(len(self.log_batches))
        return np.asarray(np.linalg.inv(np.linalg.cholesky(kernel)).T, dtype=float)

    def unexplained_variance(self, log_batch: Array) -> Array:
        """Variance of log compute that no batch that was timed tells of, `(num,)`."""
        explained = np.sum(self.design(log_batch) ** 2, axis=1)
        return np.asarray(np.maximum(_SD**2 - explained, 0.0), dtype=float)


def bend_of(batch_size_per_rank: Array) -> BatchBend:
    """The bend that these batches can tell of."""
    return BatchBend(log_batches=np.log(np.unique(batch_size_per_rank)))


def _kernel(left: Array, right: Array) -> Array:
    return np.asarray(np.exp(-0.5 * ((left[:, None] - right[None, :]) / _LENGTH) ** 2), dtype=float)
