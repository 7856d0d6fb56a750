"""Continues a training on another number of nodes, from a copy of its checkpoint.

For example, a run has trained for 100 s on two nodes, and four nodes would have needed 60 s. After its
transfer to four nodes, its training time counts from 60 s, although the checkpoint says 100 s. The offset of
-40 s is therefore stored in the folder of the new probe (the continued training), and is added to the
training seconds that are measured from then on.
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
    """Adds an offset to the training seconds of a slice, which then are those of the whole training.

    A slice that repeated its training from the beginning is returned unchanged.

    Args:
        measurement: Measurement of the slice, with training seconds that count from the checkpoint.
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
    """Copies the newest checkpoint of a training into a new folder, where it continues on other nodes.

    Args:
        source: All measurements of the training so far, with training seconds on the old nodes.
        source_folder: Folder with the checkpoints of the training so far.
        folder: Folder in which the training continues; it must exist.
        to: The new configuration. It may differ from the old one only in the number of nodes.
        ratio: Seconds per sample on the new nodes, divided by seconds per sample on the old nodes.

    Returns:
        The measurement with which the continued training starts. It contains the learning curve so far, with
        training seconds converted to the new nodes, and no charge.

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
    """Removes the stored offset of training seconds, because the training started from the beginning again.

    Args:
        folder: Folder of the training, in which the offset is stored.

    Raises:
        StorageError: The folder cannot be written.
    """
    try:
        (folder / _NAME).unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"{folder / _NAME} cannot be removed: {error}") from error


def transferred(folder: Path) -> float:
    """Returns the offset that converts measured training seconds to those of the whole training.

    Args:
        folder: Folder of the training, in which the offset is stored.

    Returns:
        Seconds to add; 0 if the training did not come from other nodes.
    """
    path = folder / _NAME
    return float(json.loads(path.read_text())["offset_seconds"]) if path.is_file() else 0.0
