"""Resume a run on other nodes: copy its checkpoint to a new probe and convert its training clock."""

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
    """A slice's measurement on the clock of the run's present nodes.

    A slice that trained its whole run again has the clock of these nodes already.

    Args:
        measurement: On the prober's clock.
        offset_seconds: What is added to it: `transferred`.
    """
    if measurement.restart_seconds is not None:
        return measurement
    later = measurement.training_seconds + offset_seconds
    curve = (replace(p, training_seconds=p.training_seconds + offset_seconds) for p in measurement.curve)
    return replace(measurement, training_seconds=later, curve=tuple(curve))


def resume_on_other_nodes(
    source: Measurement, source_folder: Path, folder: Path, to: Configuration, ratio: float
) -> Measurement:
    """Puts a run's newest checkpoint into another probe's folder.

    Args:
        source: All the run showed so far, on the clock of its present nodes.
        source_folder: Its probe's folder.
        folder: The new probe's folder; exists.
        to: The new configuration; it differs in nodes only.
        ratio: Seconds a sample on the new nodes over those on the old ones.

    Returns:
        What the new probe starts with: the curve by samples as measured, its seconds priced for the new
        nodes, nothing charged.

    Raises:
        StorageError: The folder cannot be written.
    """
    seconds = source.training_seconds * ratio
    # The checkpoint's clock is the prober's own; earlier moves to other nodes put the run ahead of it.
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
    """Registers that a run was trained here from its beginning, so that its clock is the prober's.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / _NAME} cannot be removed: {error}") from error


def transferred(folder: Path) -> float:
    """Seconds by which a run that was resumed here is ahead of the prober's clock; 0 if it started here."""
    path = folder / _NAME
    return float(json.loads(path.read_text())["offset_seconds"]) if path.is_file() else 0.0
