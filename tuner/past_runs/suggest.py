"""Guesses the columns and parameters of past runs that contain metric, progress and axes, by their names.

The progress of a run is its number of samples, steps or epochs. The axes are the parameters that Paceline
tunes: batch size, learning rate and number of nodes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuner.past_runs.found import STEP, TIME, FoundRun, number
from tuner.past_runs.mapping import Mapping

#: Usual names of the parameters and columns of a run, the preferred name first. They are in lower case and
#: without path and separators: `lr0` also stands for `optimizer.lr_0`.
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
#: Names of parameters with the number of devices on all nodes together. Other names for a number of devices
#: may mean those of one node.
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
#: Names of the column that counts calls of `wandb.log`, not optimizer steps.
_LOG_CALLS = ("_step", "Step")
_VALIDATION, _TRAINING = ("validation", "valid", "val", "eval", "test", "dev"), ("train", "training")
#: Words which show that a parameter is used for validation, not for training, if they are in its name.
_NOT_TRAINING = {*_VALIDATION, "evaluation", "testing", "inference"}
#: Prefix of the scalars that Keras writes at the end of each epoch. The first epoch has the number 0.
_PER_EPOCH = "epoch_"
#: Maps each known metric to other names of it.
_ALSO = {"accuracy": ("accuracy", "acc", "top1", "acc1"), "error_rate": ("errorrate", "error", "err")}


@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A mapping that was completed with guesses.

    Args:
        mapping: The mapping with the names from the user and the guessed names.
        missing: The required keys that still have no value.
        candidates: Maps each missing key to the names of columns or parameters that the user can choose.
    """

    mapping: Mapping
    missing: tuple[str, ...]
    candidates: dict[str, tuple[str, ...]]


def suggest(stated: Mapping, runs: Sequence[FoundRun], metric: str, *, knows_epochs: bool) -> Suggestion:
    """Completes a mapping: adds each missing column or parameter for which only one name is possible.

    Args:
        stated: The mapping of the user, whose keys are not changed.
        runs: The past runs.
        metric: Name of the job's metric.
        knows_epochs: Whether the number of samples per epoch is known, so a column with epochs can be used.
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
        # Keras writes the number of the epoch as the step.
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
    """Sorts names: first those that contain the first of `parts`, then those with the second, and so on."""

    def place(name: str) -> int:
        return next((i for i, part in enumerate(parts) if part in name.lower()), len(parts))

    return tuple(sorted(names, key=place))


def metric_column(columns: Sequence[str], metric: str) -> str | None:
    """Returns the column of a metric; None if no column or several columns match.

    A column matches if its name is that of the metric, with or without a word for validation such as `val`.
    If there are matches with such a word, only these matches are used. Columns with a word for training, such
    as `train`, never match.
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
    """Returns the key for the training progress (such as step), and its column; None if there is none."""
    usual = [name for name in columns if name not in _LOG_CALLS]
    for key, names in (("samples", _SAMPLES), ("step", _STEPS), ("epoch", _EPOCHS)):
        column = _column(usual, names)
        if column is not None and (key != "epoch" or knows_epochs):
            return key, column
    column = _column(usual, _EPOCHS)
    return ("epoch", column) if column is not None else ("step", None)


def _column(columns: Sequence[str], names: Sequence[str]) -> str | None:
    """Returns the column that matches the earliest of `names`; of several, the one with the shortest name."""
    for wanted in names:
        fitting = [column for column in columns if wanted == _plain(column)]
        if fitting:
            return min(fitting, key=len)
    return None


class _Parameters:
    """Searches the parameters of all runs by the last part of their names, such as `lr` of `optimizer.lr`.

    Args:
        runs: The past runs.
        stated: The mapping of the user. The groups of its `name_pattern` are parameters too, and are
            preferred.
    """

    def __init__(self, runs: Sequence[FoundRun], stated: Mapping) -> None:
        pattern = stated.name_pattern
        self._groups = [] if pattern is None else list(re.compile(pattern).groupindex)
        self._runs = runs
        self.names = list(dict.fromkeys([*self._groups, *(name for run in runs for name in run.parameters)]))

    def fitting(self, names: Sequence[str]) -> list[str]:
        """Returns the parameters with names whose last part is in `names`, in the order of `names`.

        - Parameters that are used for validation are never returned.
        - If groups of `name_pattern` match, only these groups are returned.
        - Otherwise, if parameters with `train` in their name match, only these parameters are returned.
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
        """Whether, in any run, a parameter that matches `names` is above 1 or is a text such as `auto`."""
        fitting = self.fitting(names)
        if any(name in self._groups for name in fitting):
            return True  # the values of the groups are not known yet
        texts = {run.parameters[name] for run in self._runs for name in fitting if name in run.parameters}
        return any((value := number(text)) is None or not 0 <= value <= 1 for text in texts)

    def named(self, names: Sequence[str]) -> str | None:
        """Returns the parameter that matches `names`; None if there is none or the choice is ambiguous.

        - If all matching parameters have the same prefix, such as `optimizer.`, the first name in `names`
          decides.
        - If their prefixes differ, they must have equal values in every run. Otherwise the choice is
          ambiguous.
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
    """Returns the parameter with the global batch size, or the parameters whose product is this size.

    The product is the batch size per device, times the number of devices, times the number of accumulated
    micro-batches.

    Returns:
        One or several names; None if it is unclear whether a batch size is that of one device, or whether a
        number of devices is that of one node.
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
    """Splits a name into words, in lower case."""
    return set(re.split(r"[^a-z0-9]+", name.lower()))


def _plain(name: str) -> str:
    """Returns a name in lower case without separators."""
    return re.sub(r"[^a-z0-9]", "", name.lower())
