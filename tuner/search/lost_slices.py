"""Slices that were lost with a killed tuner: derive their cost from the files of their probes."""

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
    """Path of a probe's folder.

    The path contains the study's creation time, so a folder left over from a deleted database is not reused.
    """
    return output / "probes" / f"{study.name}-{int(study.created_at):x}" / f"{probe_id:04d}"


def lost_span(folder: Path, lease: Lease) -> Span:
    """Time span in which a lost slice ran, in seconds since the epoch; empty if there was none.

    It starts when the slice's description was written to the probe's folder. It ends with the last change of
    a file there, or with the lease if that is earlier.

    Args:
        folder: Folder of the probe.
        lease: Lease of the killed tuner.
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
    """Marks the lost slice in a probe's folder as charged, so that `lost_span` does not find it again."""
    with contextlib.suppress(OSError):
        (folder / DESCRIPTION_FILE).touch()


def lost_slice(probe: ProbeRecord, span: Span, others: Sequence[Span], cluster: Cluster) -> Measurement:
    """Measurement that stores a lost slice: it is charged, but its run has no progress.

    Args:
        probe: Probe of the slice.
        span: Time span in which the slice ran.
        others: Time spans of other lost slices, which already count any overlapping time.
        cluster: The cluster that it ran on.
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
