"""Reader of TensorBoard event files: each folder with event files is a run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError
from tuner.past_runs.found import (
    MOST_ROWS,
    MOST_RUNS,
    STEP,
    TIME,
    Found,
    FoundRun,
    LeftOut,
    flat_parameters,
    parameters_nearby,
    too_large,
)

NAME = "tensorboard"
_EVENTS = "tfevents"
#: Tag under which the HParams plugin stores the hyperparameters of a run.
_SESSION_START = "_hparams_/session_start_info"
#: A folder below a run whose scalars have so few values holds the hyperparameters of the run above it.
_FEWEST_SCORES = 2


def accepts(path: Path) -> bool:
    """Whether a file is an event file by its name."""
    return _EVENTS in path.name and path.is_file()


def read(paths: Sequence[Path], _run_column: str | None) -> Found:
    """The runs of event files: those of one folder are one run.

    Hyperparameters are those of the HParams plugin, of texts that are JSON tables (as Hugging Face's Trainer
    writes its arguments), and of files such as `hparams.yaml` in the folder.

    Args:
        paths: The files.

    Raises:
        JobError: The package tensorboard is not installed.
    """
    if paths and importlib.util.find_spec("tensorboard") is None:
        raise JobError(
            f"{paths[0]}: reading event files needs the package tensorboard, which is not installed here: "
            "pip install 'paceline[tensorboard]'"
        )
    folders: dict[Path, list[Path]] = {}
    for path in sorted(paths):
        folders.setdefault(path.parent, []).append(path)
    left_out: list[LeftOut] = []
    if len(folders) > MOST_RUNS:
        words = f"there are {len(folders)} runs; the first {MOST_RUNS} are read"
        left_out.append(LeftOut(what="the runs of TensorBoard", reason=words))
    runs = {}
    for folder, files in list(folders.items())[:MOST_RUNS]:
        found = _of_folder(folder, files, left_out)
        if found is not None:
            runs[folder] = found
    for folder in [f for f in runs if f.name == "train" and f.with_name("validation") in runs]:
        del runs[folder]
        words = "it has the curve of the training data; that of the validation data lies beside it"
        left_out.append(LeftOut(what=str(folder), reason=words))
    return Found(runs=tuple(_with_parameters_below(runs)), left_out=tuple(left_out))


def _of_folder(folder: Path, files: Sequence[Path], left_out: list[LeftOut]) -> FoundRun | None:
    """The run of a folder; None if nothing could be read."""
    rows: dict[float, dict[str, float]] = {}
    parameters, skipped = parameters_nearby(folder / _EVENTS, alone=True)
    left_out += skipped
    has_read = False
    for path in files:
        reason = too_large(path)
        reader = None if reason is not None else _accumulator(path)
        if reader is None or isinstance(reader, str):
            left_out.append(LeftOut(what=str(path), reason=reason or str(reader)))
            continue
        has_read = True
        parameters = {**parameters, **_parameters(reader)}
        for step, time, tag, value in _scalars(reader):
            row = rows.setdefault(step, {STEP: step})
            row[tag] = value
            row[TIME] = max(row.get(TIME, 0.0), time)
    if not has_read:
        return None
    ordered = tuple(row for _, row in sorted(rows.items()))[:MOST_ROWS]
    return FoundRun(name="", source=folder, format=NAME, rows=ordered, parameters=parameters)


def _accumulator(path: Path) -> Any:
    """TensorBoard's reader of one file, with the file read; a sentence if it is not an event file."""
    from tensorboard.backend.event_processing import event_accumulator

    everything = {event_accumulator.SCALARS: 0, event_accumulator.TENSORS: 0}
    reader = event_accumulator.EventAccumulator(str(path), size_guidance=everything)
    try:
        reader.Reload()
    except Exception as error:  # a damaged file fails in TensorBoard, in protobuf or in NumPy
        return f"it is not an event file: {type(error).__name__}: {_first_line(error)}"
    tags = reader.Tags()
    if not any(
        tags[kind] for kind in (event_accumulator.SCALARS, event_accumulator.TENSORS)
    ) and not _parameters(reader):
        return "no scalar could be read from it: it is empty, damaged, or no event file"
    return reader


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0]


def _scalars(reader: Any) -> list[tuple[float, float, str, float]]:
    """Step, time, tag and value of each scalar, also of those that TensorFlow 2 stores as tensors."""
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.util import tensor_util

    tags = reader.Tags()
    found = [
        (float(event.step), float(event.wall_time), tag, float(event.value))
        for tag in tags[event_accumulator.SCALARS]
        for event in reader.Scalars(tag)
    ]
    for tag in tags[event_accumulator.TENSORS]:
        if reader.SummaryMetadata(tag).plugin_data.plugin_name != "scalars":
            continue
        for event in reader.Tensors(tag):
            try:
                value = float(tensor_util.make_ndarray(event.tensor_proto))
            except (TypeError, ValueError):
                continue
            found.append((float(event.step), float(event.wall_time), tag, value))
    return found


def _parameters(reader: Any) -> dict[str, str]:
    """Hyperparameters of the HParams plugin, and of texts that are JSON tables."""
    from tensorboard.backend.event_processing import event_accumulator
    from tensorboard.plugins.hparams import plugin_data_pb2
    from tensorboard.util import tensor_util

    found: dict[str, str] = {}
    for tag in reader.Tags()[event_accumulator.TENSORS]:
        if reader.SummaryMetadata(tag).plugin_data.plugin_name != "text":
            continue
        for event in reader.Tensors(tag)[-1:]:
            try:
                text = tensor_util.make_ndarray(event.tensor_proto).reshape(-1)[0]
                found |= flat_parameters(json.loads(text))
            except (TypeError, ValueError, IndexError, RecursionError):
                continue
    try:
        stored = reader.PluginTagToContent("hparams").get(_SESSION_START)
        if stored is not None:
            session = plugin_data_pb2.HParamsPluginData.FromString(stored).session_start_info
            for name, value in session.hparams.items():
                kind = value.WhichOneof("kind")
                found[name] = str(getattr(value, kind)) if kind else ""
    except Exception:  # what a damaged file holds may be anything
        return found
    return found


def _with_parameters_below(runs: dict[Path, FoundRun]) -> list[FoundRun]:
    """The runs, without folders that only hold the hyperparameters of the run above them.

    `SummaryWriter.add_hparams` of PyTorch writes hyperparameters and final values to a folder below the run.
    """
    taken: dict[Path, dict[str, str]] = {}
    left = {}
    for folder, run in runs.items():
        above = folder.parent
        if len(run.rows) < _FEWEST_SCORES and run.parameters and above in runs:
            taken.setdefault(above, {}).update(run.parameters)
        else:
            left[folder] = run
    return [
        replace(run, parameters={**run.parameters, **taken.get(folder, {})}) for folder, run in left.items()
    ]
