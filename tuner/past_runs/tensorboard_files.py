"""Reads past runs from TensorBoard event files. The event files in one folder are one run."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError
from tuner.domain.metric_files import UnreadableError, event_reader, read_events
from tuner.past_runs.found import (
    MOST_ROWS,
    STEP,
    TIME,
    Found,
    FoundRun,
    LeftOut,
    check_size,
    flat_parameters,
    limited,
    parameters_nearby,
)

NAME = "tensorboard"
_EVENTS = "tfevents"
#: Tag of the hyperparameters that the HParams plugin stores.
_SESSION_START = "_hparams_/session_start_info"
#: A subfolder of a run that has fewer scores than this is taken as a folder for the hyperparameters of that
#: run, not as a run of its own.
_FEWEST_SCORES = 2


def accepts(path: Path) -> bool:
    """Whether a path is a file whose name contains `tfevents`."""
    return _EVENTS in path.name and path.is_file()


def read(paths: Sequence[Path], _run_column: str | None) -> Found:
    """Reads the runs in event files. The files in one folder are one run.

    Hyperparameters are read from three places: data of the HParams plugin, logged texts that are JSON objects
    (as Hugging Face's Trainer writes them), and files such as `hparams.yaml` in the folder.

    Args:
        paths: Paths of the event files.

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
    runs = {}
    for folder, files in limited(folders.items(), "the runs of TensorBoard", left_out):
        found = _of_folder(folder, files, left_out)
        if found is not None:
            runs[folder] = found
    for folder in [f for f in runs if f.name == "train" and f.with_name("validation") in runs]:
        del runs[folder]
        reason = "it has the curve of the training data; the validation data are in a folder beside it"
        left_out.append(LeftOut(what=str(folder), reason=reason))
    return Found(runs=tuple(_with_parameters_below(runs)), left_out=tuple(left_out))


def _of_folder(folder: Path, files: Sequence[Path], left_out: list[LeftOut]) -> FoundRun | None:
    """Reads the event files in a folder as one run. Returns None if no file can be read."""
    rows: dict[float, dict[str, float]] = {}
    parameters = parameters_nearby(folder / _EVENTS, left_out, is_alone=True)
    has_read = False
    for path in files:
        try:
            reader = _accumulator(path)
        except UnreadableError as error:
            left_out.append(LeftOut(what=str(path), reason=str(error)))
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
    """Returns TensorBoard's `EventAccumulator` that has read the event file.

    Raises:
        UnreadableError: The file is not an event file, or it has neither scalars nor hyperparameters.
    """
    check_size(path)
    reader = event_reader(path)
    tags = read_events(reader)
    if not tags["scalars"] and not tags["tensors"] and not _parameters(reader):
        raise UnreadableError("no scalar could be read from it: it is empty, damaged, or not an event file")
    return reader


def _scalars(reader: Any) -> list[tuple[float, float, str, float]]:
    """Returns step, time, tag and value of each scalar; TensorFlow 2 stores scalars as tensors."""
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
    """Returns the hyperparameters in data of the HParams plugin and in logged texts that are JSON objects."""
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
    except Exception:  # damaged files raise errors of many kinds
        return found
    return found


def _with_parameters_below(runs: dict[Path, FoundRun]) -> list[FoundRun]:
    """Adds to each run the hyperparameters in its subfolders, and returns the runs without these subfolders.

    PyTorch's `SummaryWriter.add_hparams` writes hyperparameters and final values to such a subfolder.
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
