"""Charges the time of slices that were running when Paceline was killed, so their measurements were lost.

A slice is an uninterrupted part of a probe (a trial training). Its time is estimated from the files in the
folder of the probe.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from tuner.domain.cluster import Cluster, charge
from tuner.domain.ledger import Lease, ProbeRecord, StudyRecord
from tuner.domain.measurement import Measurement, Outcome
from tuner.probes.probe_folder import DESCRIPTION_FILE, ProbeFolder
from tuner.search.spans import Span, covered


def probe_folder(output: Path, study: StudyRecord, probe_id: int) -> Path:
    """Returns the path of the folder with the files of a probe (a trial training).

    The path contains the creation time of the study. So the folder differs from that of an earlier study with
    the same name, whose database was deleted.

    Args:
        output: The output folder.
        study: Record of the study.
        probe_id: ID of the probe.
    """
    return output / "probes" / f"{study.name}-{int(study.created_at):x}" / f"{probe_id:04d}"


def lost_span(folder: Path, lease: Lease) -> Span:
    """Estimates from when to when a slice ran that was lost because Paceline was killed.

    The time span starts when the description of the slice was written to the folder of its probe. It ends at
    the last change of a file in this folder, or when the lease expired if that was earlier.

    Args:
        folder: Folder of the probe (the trial training) that the slice belongs to.
        lease: Lease (time-limited right to work on the probe) of the killed process.

    Returns:
        Start and end of the span, in seconds since the Unix epoch; 0 and 0 if there was no lost slice.
    """
    description = folder / DESCRIPTION_FILE
    try:
        started = description.stat().st_mtime
        number = int(json.loads(description.read_text())["slice"])
        if number in ProbeFolder(folder).ended_slices:
            return 0.0, 0.0
        newest = max(path.lstat().st_mtime for path in folder.rglob("*"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0.0
    return started, max(min(newest, lease.expires_at), started)


def note_charged(folder: Path) -> None:
    """Marks a lost slice as charged, so it is not charged again.

    From now on, `lost_span` returns an empty time span for it.

    Args:
        folder: Folder of the probe (the trial training) that the slice belongs to.
    """
    with contextlib.suppress(OSError):
        (folder / DESCRIPTION_FILE).touch()


def lost_slice(probe: ProbeRecord, span: Span, others: Sequence[Span], cluster: Cluster) -> Measurement:
    """Makes the measurement that is stored for a lost slice: it has charges, but no training progress.

    Args:
        probe: The probe (the trial training) that the slice belongs to.
        span: Time span in which the slice ran, from `lost_span`.
        others: Time spans of other lost slices. Time in which several lost slices ran counts once in the
            elapsed time of the search.
        cluster: The cluster on which the slice ran.
    """
    before, seconds = probe.measurement, covered([span])
    charged = charge(seconds, probe.configuration, cluster)
    return Measurement(
        configuration=probe.configuration,
        purpose=probe.purpose,
        outcome=Outcome.PAUSED,
        step=before.step if before else 0,
        samples=before.samples if before else 0,
        training_seconds=before.training_seconds if before else 0.0,
        charged_seconds=charged.seconds,
        charged_dollars=0.0 if cluster.emulates(probe.configuration) else charged.dollars,
        checkpoint=before.checkpoint if before else None,
        shared_seconds=max(seconds + covered(others) - covered([span, *others]), 0.0),
        error=f"the slice was lost after about {seconds:.1f} s: Paceline was killed while it ran",
    )
