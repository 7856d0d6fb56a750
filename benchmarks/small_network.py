"""A network of two layers in numpy, trained for real under a synchronous or an asynchronous parameter server.

Small enough that hundreds of trainings take a minute or two on one core, and yet its curves have what
searches must cope with: rates that diverge, noise, and gradients that are too stale to help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration

Array = npt.NDArray[np.float32]
Metric = Literal["loss", "accuracy"]

#: Names of the two ways to train: gradients averaged at each step, or applied as they come.
SYNC, ASYNC = "sync", "async"
#: What a model is worth that has diverged: no loss counts as larger, and an accuracy is that of chance.
WORST_VALUE: dict[Metric, float] = {"loss": 20.0, "accuracy": 0.1}

_NUM_CLASSES = 10
#: The first scoring, and how much later each further one is.
_FIRST_SCORING_SAMPLES = 256
_SCORING_RATIO = 1.12


@dataclass(frozen=True, kw_only=True, eq=False)
class Images:
    """Images with a class each.

    Args:
        pixels: `(num_images, num_pixels)`.
        labels: `(num_images,)`, from 0 to 9.
    """

    pixels: Array
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, num_images: int) -> Images:
        """The first of them."""
        return Images(pixels=self.pixels[:num_images], labels=self.labels[:num_images])


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """What is trained on, and what is scored."""

    training: Images
    validation: Images


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all trainings of a recording have in common.

    Args:
        metric: What is scored: mean cross-entropy, or the share of images whose class is found.
        num_hidden: Units of the hidden layer.
        num_samples: Where a training ends, in samples of all ranks.
    """

    metric: Metric
    num_hidden: int
    num_samples: int


class Parameters(NamedTuple):
    """Weights and biases of both layers, or a gradient by them; never changed in place."""

    hidden_weights: Array
    hidden_bias: Array
    output_weights: Array
    output_bias: Array

    def descended(self, gradient: Parameters, learning_rate: float) -> Parameters:
        """A step of plain gradient descent."""
        return Parameters(*(p - learning_rate * g for p, g in zip(self, gradient, strict=True)))


class Scoring(NamedTuple):
    """What the server's parameters were worth after a number of its updates."""

    step: int
    value: float


def initial_parameters(num_pixels: int, num_hidden: int, rng: np.random.Generator) -> Parameters:
    """Normal weights of variance 2 / inputs (He et al. 2015), and no bias."""

    def weights(num_inputs: int, num_outputs: int) -> Array:
        return rng.normal(0.0, np.sqrt(2 / num_inputs), (num_inputs, num_outputs)).astype(np.float32)

    return Parameters(
        hidden_weights=weights(num_pixels, num_hidden),
        hidden_bias=np.zeros(num_hidden, np.float32),
        output_weights=weights(num_hidden, _NUM_CLASSES),
        output_bias=np.zeros(_NUM_CLASSES, np.float32),
    )


def gradient(parameters: Parameters, pixels: Array, labels: npt.NDArray[np.int64]) -> Parameters:
    """Of the mean cross-entropy of some images."""
    hidden = np.maximum(pixels @ parameters.hidden_weights + parameters.hidden_bias, 0)
    by_logits = np.exp(_log_probabilities(parameters, hidden))
    by_logits[np.arange(len(labels)), labels] -= 1
    by_logits /= len(labels)
    by_hidden = by_logits @ parameters.output_weights.T
    by_hidden[hidden <= 0] = 0
    return Parameters(
        hidden_weights=pixels.T @ by_hidden,
        hidden_bias=by_hidden.sum(axis=0),
        output_weights=hidden.T @ by_logits,
        output_bias=by_logits.sum(axis=0),
    )


def score(parameters: Parameters, images: Images, metric: Metric) -> float:
    """The metric on some images; where it is not finite, `WORST_VALUE`."""
    hidden = np.maximum(images.pixels @ parameters.hidden_weights + parameters.hidden_bias, 0)
    found = _log_probabilities(parameters, hidden)
    if np.isnan(found).any():
        return WORST_VALUE[metric]
    if metric == "accuracy":
        return float((found.argmax(axis=1) == images.labels).mean())
    return min(float(-found[np.arange(len(images)), images.labels].mean()), WORST_VALUE[metric])


def train(task: Task, data: Split, what: Configuration, rng: np.random.Generator) -> list[Scoring]:
    """One training, scored at steps that grow further apart.

    Synchronously, a step averages the gradients of all ranks. Asynchronously, the ranks take turns: one's
    gradient, of the parameters it was sent after its own last one, is applied at once, so that with n nodes
    each gradient is n - 1 updates old. On one node both are the same.

    Args:
        task: What is trained, and for how long.
        data: On what.
        what: Nodes, samples of one rank's gradient (`batch_size`), learning rate, and `sync` or `async`.
        rng: First weights and order of samples.
    """
    is_async = what.strategy == ASYNC
    step_samples = what.batch_size if is_async else what.batch_size * what.nodes
    center = initial_parameters(data.training.pixels.shape[1], task.num_hidden, rng)
    #: What each rank was sent last; the ranks of a synchronous step all have the same.
    sent = [center] * (what.nodes if is_async else 1)
    scorings: list[Scoring] = []
    step, next_scoring = 0, float(_FIRST_SCORING_SAMPLES)
    # A rate that is too large overflows: that is what is recorded.
    with np.errstate(over="ignore", invalid="ignore"):
        while step * step_samples < task.num_samples:
            chosen = rng.integers(0, len(data.training), step_samples)
            turn = step % len(sent)
            found = gradient(sent[turn], data.training.pixels[chosen], data.training.labels[chosen])
            center = sent[turn] = center.descended(found, what.learning_rate)
            step += 1
            if step * step_samples >= next_scoring:
                scorings.append(Scoring(step, score(center, data.validation, task.metric)))
                next_scoring = _SCORING_RATIO * step * step_samples
    return scorings


def _log_probabilities(parameters: Parameters, hidden: Array) -> Array:
    logits = hidden @ parameters.output_weights + parameters.output_bias
    logits -= logits.max(axis=1, keepdims=True)
    found: Array = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return found
