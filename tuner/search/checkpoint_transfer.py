"""Continue a run on another number of nodes, from a checkpoint that is copied to a new probe.

For example, a run has trained for 100 s on two nodes, and four nodes would have needed 60 s. After its
transfer to four nodes, its training time counts from 60 s. The prober (the object that trains) continues from
the 100 s in the checkpoint. So the offset of -40 s is stored in the folder of the new probe, and is added to
the training seconds of the prober.
"""

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
    """Adds an offset to the training seconds of a slice, so they become those of the whole run.

    A slice that trained its run again from the beginning is returned unchanged.

    Args:
        measurement: Measurement with the training seconds of the prober.
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
    """Copies the newest checkpoint of a run into the folder of a new probe.

    Args:
        source: All measurements of the run, with training seconds on the old nodes.
        source_folder: Folder of the run's probe.
        folder: Folder of the new probe; it must exist.
        to: The new configuration. It may differ from that of the run only in the number of nodes.
        ratio: Seconds per sample on the new nodes, divided by seconds per sample on the old nodes.

    Returns:
        The first measurement of the new probe. It contains the learning curve of the run, with training
        seconds converted to the new nodes, and no charge.

    Raises:
        StorageError: The folder cannot be written.
    """
    seconds = source.training_seconds * ratio
    # The checkpoint stores the training seconds of the prober, without the offset of earlier transfers.
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
    """Removes the stored offset of training seconds, because the run was trained again from the start.

    Args:
        folder: Folder of the probe.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / _NAME} cannot be removed: {error}") from error


def transferred(folder: Path) -> float:
    """Returns the stored offset: seconds to add to the prober's training seconds to get those of the run.

    Args:
        folder: Folder of the probe.

    Returns:
        The seconds; 0 if the run started in this folder.
    """
    path = folder / _NAME
    return float(json.loads(path.read_text())["offset_seconds"]) if path.is_file() else 0.0
