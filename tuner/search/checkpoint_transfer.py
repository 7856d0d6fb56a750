"""Resume a run on other nodes: copy its checkpoint to a new probe and convert its training time."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.checkpoints import write_atomically
from tuner.domain.errors import StorageError
from tuner.domain.measurement import Measurement, Outcome

_NAME = "carried.json"
_CHECKPOINTS = "checkpoints"


def moved_clock(measurement: Measurement, offset_seconds: float) -> Measurement:
    """Converts a slice's training seconds from the prober's clock to the clock of the whole run.

    A slice that trained its whole run again needs no conversion.

    Args:
        measurement: Measurement on the prober's clock.
        offset_seconds: Seconds to add, from `transferred`.
    """
    if measurement.restart_seconds is not None:
        return measurement
    later = measurement.training_seconds + offset_seconds
    curve = (replace(p, training_seconds=p.training_seconds + offset_seconds) for p in measurement.curve)
    return replace(measurement, training_seconds=later, curve=tuple(curve))


def resume_on_other_nodes(
    source: Measurement, source_folder: Path, folder: Path, to: Configuration, ratio: float
) -> Measurement:
    """Copies a run's newest checkpoint into a new probe's folder.

    Args:
        source: All measurements of the run, with training seconds of its present nodes.
        source_folder: Folder of the run's probe.
        folder: Folder of the new probe; it must exist.
        to: The new configuration; it may differ in the number of nodes only.
        ratio: Seconds per sample on the new nodes, divided by those on the old nodes.

    Returns:
        The first measurement of the new probe: the measured curve, with training seconds converted to the
        new nodes, and without charges.

    Raises:
        StorageError: The folder cannot be written.
    """
    seconds = source.training_seconds * ratio
    # The checkpoint has the prober's clock, which earlier transfers have shifted against the run's clock.
    checkpoint_seconds = source.training_seconds - transferred(source_folder)
    try:
        shutil.copytree(source_folder / _CHECKPOINTS, folder / _CHECKPOINTS, dirs_exist_ok=True)
        text = json.dumps({"offset_seconds": seconds - checkpoint_seconds}).encode()
        write_atomically(folder / _NAME, lambda file: file.write(text))
    except OSError as error:
        raise StorageError(
            f"the checkpoint cannot be copied to {folder}: {error}; free space there"
        ) from error
    return replace(
        source,
        configuration=to,
        outcome=Outcome.PAUSED,
        curve=tuple(replace(p, training_seconds=p.training_seconds * ratio) for p in source.curve),
        ranks=(),
        training_seconds=seconds,
        scoring_seconds=0.0,
        startup_seconds=0.0,
        repeated_seconds=0.0,
        charged_seconds=0.0,
        charged_dollars=0.0,
        shared_seconds=0.0,
        error=None,
        checkpoint=None,
    )


def forget_transfer(folder: Path) -> None:
    """Removes the clock offset of a run that was trained again from its beginning in this folder.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / _NAME} cannot be removed: {error}") from error


def transferred(folder: Path) -> float:
    """Seconds by which a transferred run is ahead of the prober's clock; 0 if the run started here."""
    path = folder / _NAME
    return float(json.loads(path.read_text())["offset_seconds"]) if path.is_file() else 0.0
