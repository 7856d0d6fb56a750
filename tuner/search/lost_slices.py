"""Slices that were lost with a killed tuner: what they cost, found from the files of their probes."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path

from tuner.domain.charge import charge
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement, Outcome
from tuner.ledger import Lease, ProbeRecord, StudyRecord
from tuner.probes.probe_folder import DESCRIPTION_FILE, ProbeFolder
from tuner.search.spans import Span, covered


def probe_folder(output: Path, study: StudyRecord, probe_id: int) -> Path:
    """The folder of a probe below the output folder.

    The study's creation time is in the name: a folder left from a deleted database is never reused.
    """
    return output / "probes" / f"{study.name}-{int(study.created_at):x}" / f"{probe_id:04d}"


def lost_span(folder: Path, lease: Lease) -> Span:
    """When a slice ran whose tuner was killed, seconds since the epoch; empty where none is known.

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
            return 0.0, 0.0
        newest = max(path.lstat().st_mtime for path in folder.rglob("*"))
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0, 0.0
    return started, max(min(newest, lease.expires_at), started)


def note_charged(folder: Path) -> None:
    """Notes in a probe's folder that its lost slice was charged: `lost_span` is empty until the next one."""
    with contextlib.suppress(OSError):
        (folder / DESCRIPTION_FILE).touch()


def lost_slice(probe: ProbeRecord, span: Span, others: Sequence[Span], cluster: Cluster) -> Measurement:
    """A lost slice as it is stored: it is charged and took its run no further.

    Args:
        probe: Its probe.
        span: When it ran.
        others: When other lost slices ran that count what they have in common with it.
        cluster: What it ran on.
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
