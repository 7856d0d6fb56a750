"""Suggest by their names which columns and parameters of past runs are the metric, position and axes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.past_runs.found import STEP, TIME, FoundRun, number
from tuner.past_runs.mapping import Mapping

#: Names of parameters in lower case without path and separators, the best one first.
_RATES = ("learningrate", "lr", "baselr", "peaklr", "maxlr", "initiallr", "lrinit", "lr0")
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
#: Names for the devices of all nodes; other names may mean the devices of one node.
_ALL_DEVICES = ("worldsize", "numranks")
_DEVICES = (*_ALL_DEVICES, "numdevices", "ndevices", "devices", "numgpus", "ngpus", "ngpu", "gpus")
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
#: Words in the names of parameters that do not belong to the training.
_NOT_TRAINING = {*_VALIDATION, "evaluation", "testing", "inference"}
#: Prefix of the scalars that Keras writes at the end of each epoch, from epoch 0.
_PER_EPOCH = "epoch_"
#: Other names of known metrics.
_ALSO = {"accuracy": ("accuracy", "acc", "top1", "acc1"), "error_rate": ("errorrate", "error", "err")}


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A mapping with suggestions.

    Args:
        mapping: The stated and the suggested names.
        missing: Required keys without a value.
        candidates: The possible names for each missing key.
    """

    mapping: Mapping
    missing: tuple[str, ...]
    candidates: dict[str, tuple[str, ...]]


def suggest(stated: Mapping, runs: Sequence[FoundRun], metric: str, *, knows_epochs: bool) -> Suggestion:
    """Complete a mapping where the names are unambiguous.

    Args:
        stated: The mapping of the user; its keys stay.
        runs: The runs.
        metric: The job's metric.
        knows_epochs: Whether the samples of an epoch are known.
    """
    columns = list(dict.fromkeys(name for run in runs for row in run.rows[:50] for name in row))
    parameters = _Parameters(runs, stated)
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
            parameters.names, ("batch", "bs", "accum", "gpu", "device", "world")
        )
    if stated.learning_rate is None:
        found["learning_rate"] = parameters.named(_RATES)
        candidates["learning_rate"] = _likely_first(parameters.names, ("lr", "learning", "rate", "eta"))
    if "nodes" not in stated.model_fields_set:
        found["nodes"] = parameters.named(_NODES)
        candidates["nodes"] = _likely_first(parameters.names, ("node",))
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
    if "nodes" not in mapping.model_fields_set and parameters.fitting(_NODES):
        missing.append("nodes")
    return Suggestion(
        mapping=mapping, missing=tuple(missing), candidates={k: candidates.get(k, ()) for k in missing}
    )


def _likely_first(names: Sequence[str], parts: Sequence[str]) -> tuple[str, ...]:
    """Names, sorted by the first of some parts that they contain."""

    def place(name: str) -> int:
        return next((i for i, part in enumerate(parts) if part in name.lower()), len(parts))

    return tuple(sorted(names, key=place))


def metric_column(columns: Sequence[str], metric: str) -> str | None:
    """The column of a metric, by its name with or without a word for validation; None if ambiguous.

    Columns of the training data are never used.
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
    found = validated or exact
    return found[0] if len(found) == 1 else None


def _position(columns: Sequence[str], *, knows_epochs: bool) -> tuple[str, str | None]:
    """The key that says how far a run is, and its column; None if no column has a known name."""
    usual = [name for name in columns if name not in _LOG_CALLS]
    for key, names in (("samples", _SAMPLES), ("step", _STEPS), ("epoch", _EPOCHS)):
        column = _column(usual, names)
        if column is not None and (key != "epoch" or knows_epochs):
            return key, column
    column = _column(usual, _EPOCHS)
    return ("epoch", column) if column is not None else ("step", None)


def _column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """The column with the earliest of some names; the shortest of several."""
    for wanted in names:
        fitting = [column for column in columns if wanted == _plain(column)]
        if fitting:
            return min(fitting, key=len)
    return None


class _Parameters:
    """The parameters of all runs, found by the last part of their names.

    Args:
        runs: The runs.
        stated: The mapping of the user; the groups of its `name_pattern` are parameters too and come first.
    """

    def __init__(self, runs: Sequence[FoundRun], stated: Mapping) -> None:
        pattern = stated.name_pattern
        self._groups = [] if pattern is None else list(re.compile(pattern).groupindex)
        self._runs = runs
        self.names = list(dict.fromkeys([*self._groups, *(name for run in runs for name in run.parameters)]))

    def fitting(self, names: Sequence[str]) -> list[str]:
        """The parameters of the training with one of some names, the best names first.

        Only groups of the user's pattern are returned if there are any, else only parameters with `train` in
        their name if there are any. Parameters of the validation are never returned.
        """
        found = [
            name
            for wanted in names
            for name in self.names
            if wanted == _plain(re.split(r"[./]", name)[-1]) and not _words(name) & _NOT_TRAINING
        ]
        groups = [name for name in found if name in self._groups]
        return groups or [name for name in found if _words(name) & set(_TRAINING)] or found

    def may_exceed_one(self, names: Sequence[str]) -> bool:
        """Whether a parameter with such a name is above 1, or not a number (such as `auto`), in any run."""
        fitting = self.fitting(names)
        if any(name in self._groups for name in fitting):
            return True  # the pattern has not been applied yet
        texts = {run.parameters[name] for run in self._runs for name in fitting if name in run.parameters}
        return any((value := number(text)) is None or not 0 <= value <= 1 for text in texts)

    def named(self, names: Sequence[str]) -> str | None:
        """The parameter with one of some names; None if there is none or if it is ambiguous.

        Of several in one table, the best name counts. Parameters in different tables are ambiguous if some
        run has different values for them.
        """
        found = self.fitting(names)
        if len({re.sub(r"[^./]*$", "", name) for name in found}) > 1:
            values = [
                {run.parameters[name] for name in found if name in run.parameters} for run in self._runs
            ]
            if any(len(of_run) > 1 for of_run in values):
                return None
            return max(found, key=lambda name: sum(name in run.parameters for run in self._runs))
        return found[0] if found else None


def _batch_size(parameters: _Parameters) -> str | tuple[str, ...] | None:
    """The global batch size: a parameter, or a batch per device times the devices and the accumulation.

    None if it is ambiguous: only the user knows whether a batch is accumulated or that of one device, and
    whether devices are those of one node or of all nodes.
    """
    if parameters.fitting(_GLOBAL_BATCHES):
        return parameters.named(_GLOBAL_BATCHES)
    has_nodes = parameters.may_exceed_one(_NODES)
    if not parameters.fitting(_PER_DEVICE):
        is_part = bool(parameters.fitting(_ACCUMULATION)) or parameters.may_exceed_one(_DEVICES)
        return None if is_part or has_nodes else parameters.named(_BATCHES)
    devices = parameters.named(_ALL_DEVICES if has_nodes else _DEVICES)
    factors = [parameters.named(_PER_DEVICE), devices]
    if parameters.fitting(_ACCUMULATION):
        factors.append(parameters.named(_ACCUMULATION))
    known = tuple(name for name in factors if name is not None)
    return known if len(known) == len(factors) else None


def _words(name: str) -> set[str]:
    """The words of a name, in lower case."""
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _plain(name: str) -> str:
    """A name in lower case without separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
