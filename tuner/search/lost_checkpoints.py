"""Continues trainings on another host than before: finds their checkpoints, or starts them again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np

from tuner.domain.errors import StorageError
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement


def started_folder(probe: ProbeRecord, own_folder: Path, *, restart_lost: bool) -> Path:
    """Returns the folder with the files of a started probe, possibly in an earlier output folder.

    Args:
        probe: The probe (trial training).
        own_folder: Folder of the probe in the present output folder. It is returned if the checkpoint was
            copied there from another host.
        restart_lost: Whether to return `own_folder` if the checkpoint is missing.

    Raises:
        StorageError: The checkpoint is missing.
    """
    measured = probe.measurement
    if measured is None or measured.checkpoint is None:
        return own_folder
    checkpoint = Path(measured.checkpoint)
    if checkpoint.exists():
        return checkpoint.parent.parent
    if restart_lost or (own_folder / checkpoint.parent.name / checkpoint.name).exists():
        return own_folder
    raise StorageError(
        f"the checkpoint {checkpoint} of probe {probe.probe_id} is missing; restore it, "
        "or start a new study with --fresh"
    )


def is_lost(measured: Measurement, folder: Path, *, without: Collection[str] = ()) -> bool:
    """Whether a training has saved checkpoints, but none is in the folder of its probe.

    Args:
        measured: All measurements of the training so far.
        folder: Folder of the probe.
        without: Names of files that are no checkpoints.
    """
    if measured.checkpoint is None:
        return False
    found = (folder / Path(measured.checkpoint).parent.name).glob("*")
    return all(path.name in without for path in found)


def restarted(measurement: Measurement, before: Measurement) -> Measurement:
    """Completes the measurement of a slice that trained from the beginning because its checkpoint was lost.

    If the slice did not train as far as the earlier slices, it adds nothing to the training but its charge.

    Args:
        measurement: Measurement of the slice, as the prober returned it.
        before: All measurements of the training before.
    """
    if measurement.restart_seconds is not None:
        return measurement
    if measurement.samples < before.samples:
        return replace(
            measurement,
            curve=(),
            step=before.step,
            samples=before.samples,
            training_seconds=before.training_seconds,
            repeated_seconds=measurement.training_seconds,
        )
    samples = [0, *(point.samples for point in measurement.trained_curve), measurement.samples]
    seconds = [0.0, *(p.training_seconds for p in measurement.trained_curve), measurement.training_seconds]
    repeated = float(np.interp(before.samples, samples, seconds))
    return replace(measurement, restart_seconds=repeated, repeated_seconds=repeated)
