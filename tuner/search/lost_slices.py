"""Slices that were lost with a killed tuner: what they cost, found from the files of their probes."""

from __future__ import annotations

import json
from pathlib import Path

from tuner.domain.charge import charge
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement, Outcome
from tuner.ledger import Lease, ProbeRecord, StudyRecord
from tuner.probes.probe_folder import DESCRIPTION_FILE, ProbeFolder


def probe_folder(output: Path, study: StudyRecord, probe_id: int) -> Path:
    """The folder of a probe below the output folder.

    The study's creation time is in the name: a folder left from a deleted database is never reused.
    """
    return output / "probes" / f"{study.name}-{int(study.created_at):x}" / f"{probe_id:04d}"


def lost_seconds(folder: Path, lease: Lease) -> float:
    """How long a slice ran whose tuner was killed, in seconds; 0 where none was lost, or none is known.

    From the time at which the slice was described in the probe's folder to the newest change of any file
    there, but not beyond the end of the lease.

    Args:
        folder: The probe's.
        lease: Of the killed tuner.
    """
    description = folder / DESCRIPTION_FILE
    try:
        started = description.stat().st_mtime
        number = int(json.loads(description.read_text())["slice"])
        if number in ProbeFolder(folder).ended_slices:
            return 0.0
        newest = max(path.lstat().st_mtime for path in folder.rglob("*"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
    return max(min(newest, lease.expires_at) - started, 0.0)


def lost_slice(probe: ProbeRecord, seconds: float, cluster: Cluster) -> Measurement:
    """A lost slice as it is stored: it is charged and took its run no further.

    Args:
        probe: Its probe.
        seconds: How long it ran.
        cluster: What it ran on.
    """
    before = probe.measurement
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
        error=f"the slice was lost after about {seconds:.1f} s: Paceline was killed while it ran",
    )
