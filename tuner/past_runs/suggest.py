"""Suggests by names which column is the metric, which the position, and which parameter is which axis."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.past_runs.found import STEP, TIME, FoundRun
from tuner.past_runs.mapping import Mapping

#: Names of parameters without case, path and separators, the best first.
_RATES = ("learningrate", "lr", "baselr", "peaklr", "maxlr", "initiallr", "lrinit", "lr0", "eta", "stepsize")
_GLOBAL_BATCHES = ("globalbatchsize", "totalbatchsize", "totaltrainbatchsize", "effectivebatchsize")
_BATCHES = ("trainbatchsize", "batchsize", "trainingbatchsize", "bs", "batch")
_PER_DEVICE = (
    *("perdevicetrainbatchsize", "perdevicebatchsize", "pergpubatchsize", "pergputrainbatchsize"),
    *(
        "microbatchsize",
        "trainmicrobatchsizepergpu",
        "localbatchsize",
        "batchsizeperdevice",
        "batchsizepergpu",
    ),
)
_DEVICES = ("worldsize", "numdevices", "ndevices", "devices", "numgpus", "ngpus", "ngpu", "gpus", "numranks")
_ACCUMULATION = (
    *("gradientaccumulationsteps", "accumulategradbatches", "gradaccumsteps", "gradaccum"),
    *("accumulationsteps",),
)
_NODES = ("numnodes", "nnodes", "nodes")
_STEPS = ("globalstep", "trainglobalstep", "trainerglobalstep", "optimizerstep", "step", "iteration", "iter")
_SAMPLES = ("samples", "samplesseen", "numsamples", "examples", "examplesseen", "trainsamples", "imagesseen")
_EPOCHS = ("epoch", "epochs", "trainepoch")
_SECONDS = ("_runtime", "seconds", "elapsed", "elapsed_seconds", TIME, "_timestamp", "time", "wall_time")
#: A column that counts calls of Weights & Biases' log, not steps of the optimizer.
_LOG_CALLS = ("_step", "Step")
_VALIDATION, _TRAINING = ("validation", "valid", "val", "eval", "test", "dev"), ("train", "training")
#: What Keras begins the names of scalars with that it writes at the end of each epoch, from epoch 0.
_PER_EPOCH = "epoch_"
#: Other names of known metrics.
_ALSO = {"accuracy": ("accuracy", "acc", "top1", "acc1"), "error_rate": ("errorrate", "error", "err")}


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A mapping, and what could not be mapped.

    Args:
        mapping: What was stated and what was suggested.
        missing: Keys that are needed and have no value.
        candidates: Of each missing key, the names that it may have.
    """

    mapping: Mapping
    missing: tuple[str, ...]
    candidates: dict[str, tuple[str, ...]]


def suggest(stated: Mapping, runs: Sequence[FoundRun], metric: str, *, knows_epochs: bool) -> Suggestion:
    """Fills in what a mapping leaves open, where names leave no doubt.

    Args:
        stated: What the user stated; it stays.
        runs: The runs.
        metric: The job's metric.
        knows_epochs: Whether the samples of an epoch are known.
    """
    columns = list(dict.fromkeys(name for run in runs for row in run.rows[:50] for name in row))
    parameters = list(dict.fromkeys(name for run in runs for name in run.parameters))
    if stated.name_pattern is not None:
        parameters = [*re.compile(stated.name_pattern).groupindex, *parameters]
    knows_epochs = knows_epochs or stated.epoch_samples is not None
    found: dict[str, Any] = {}
    candidates: dict[str, tuple[str, ...]] = {}
    if stated.metric is None:
        found["metric"] = metric_column(columns, metric)
        candidates["metric"] = tuple(name for name in columns if name not in (STEP, TIME))
    if stated.position is None:
        key, column = _position(columns, knows_epochs=knows_epochs)
        found[key] = column
        candidates[key] = tuple(columns)
    if stated.seconds is None:
        found["seconds"] = next((name for name in _SECONDS if name in columns), None)
    if stated.batch_size is None:
        found["batch_size"] = _batch_size(parameters)
        candidates["batch_size"] = _likely_first(
            parameters, ("batch", "bs", "accum", "gpu", "device", "world")
        )
    if stated.learning_rate is None:
        found["learning_rate"] = _named(parameters, _RATES)
        candidates["learning_rate"] = _likely_first(parameters, ("lr", "learning", "rate", "eta"))
    if "nodes" not in stated.model_fields_set:
        found["nodes"] = _named(parameters, _NODES)
    chosen = stated.metric or found.get("metric")
    if found.get("step") == STEP and chosen is not None and chosen.startswith(_PER_EPOCH):
        # Keras counts epochs where others count steps.
        found = {**found, "step": None, "epoch": STEP, "first_epoch": 0}
    found = {key: value for key, value in found.items() if value is not None}
    mapping = Mapping.model_validate({**stated.model_dump(exclude_unset=True), **found})
    missing = [key for key in ("metric", "batch_size", "learning_rate") if getattr(mapping, key) is None]
    if mapping.position is None:
        missing.insert(1, "step")
    if mapping.epoch is not None and not knows_epochs:
        missing.append("epoch_samples")
    return Suggestion(
        mapping=mapping, missing=tuple(missing), candidates={k: candidates.get(k, ()) for k in missing}
    )


def _likely_first(names: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
    """Names, those first that hold the earliest of some parts."""

    def place(name: str) -> int:
        return next((i for i, part in enumerate(parts) if part in name.lower()), len(parts))

    return tuple(sorted(names, key=place))


def metric_column(columns: Sequence[str], metric: str) -> str | None:
    """The column of a metric: of its name, or of its name and a word for validation; None in doubt.

    A column of the training data is never meant.
    """
    names = {_plain(metric), *_ALSO.get(metric, ())}
    exact: list[str] = []
    validated: list[str] = []
    for column in columns:
        words = [word for word in re.split(r"[^a-z0-9]+", column.lower()) if word]
        if set(words) & set(_TRAINING):
            continue
        core = "".join(word for word in words if word not in (*_VALIDATION, "epoch"))
        if core in names:
            (validated if set(words) & set(_VALIDATION) else exact).append(column)
    for found in (validated, exact):
        if len(found) == 1:
            return found[0]
        if found:
            return None
    return None


def _position(columns: Sequence[str], *, knows_epochs: bool) -> tuple[str, str | None]:
    """Which key says how far a run is, and its column; no column if none is known by its name."""
    usual = [name for name in columns if name not in _LOG_CALLS]
    for key, names in (("samples", _SAMPLES), ("step", _STEPS), ("epoch", _EPOCHS)):
        column = _named(usual, names, whole=True)
        if column is not None and (key != "epoch" or knows_epochs):
            return key, column
    column = _named(usual, _EPOCHS, whole=True)
    return ("epoch", column) if column is not None else ("step", None)


def _batch_size(parameters: Sequence[str]) -> str | tuple[str, ...] | None:
    """The global batch size: a parameter, or a batch per device times the devices and the accumulation."""
    whole = _named(parameters, _GLOBAL_BATCHES)
    if whole is not None:
        return whole
    accumulation, per_device = _named(parameters, _ACCUMULATION), _named(parameters, _PER_DEVICE)
    if per_device is None:
        # Whether a batch is one of several that are accumulated only the user knows.
        return _named(parameters, _BATCHES) if accumulation is None else None
    devices = _named(parameters, _DEVICES)
    if devices is None:
        return None
    return tuple(name for name in (per_device, devices, accumulation) if name is not None)


def _named(found: Sequence[str], names: Sequence[str], *, whole: bool = False) -> str | None:
    """The name among those found that comes first in a list; the shortest of several."""
    for wanted in names:
        fitting = [name for name in found if wanted == _plain(name if whole else re.split(r"[./]", name)[-1])]
        if fitting:
            return min(fitting, key=len)
    return None


def _plain(name: str) -> str:
    """A name in lower case without separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
