"""Runs `paceline run` on a job file, as a user would, and reads what its study holds afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device_checks.findings import Findings
from storage import open_storage
from tuner.domain.ledger import ProbeRecord
from tuner.service.opening import default_storage_url, find_study, open_job

_PACELINE = "import cli; cli.main()"


@dataclass(frozen=True, kw_only=True)
class TunedJob:
    """What a run of the command left.

    Args:
        code: Its exit code.
        recommendation: As printed in JSON; empty where there is none.
        probes: Of the study, oldest first.
    """

    code: int
    recommendation: dict[str, Any]
    probes: tuple[ProbeRecord, ...]

    @property
    def is_verified(self) -> bool:
        """Whether what is recommended was trained to the target."""
        verified = self.recommendation.get("verified")
        return bool(verified and verified["reached"])

    @property
    def peak_bytes(self) -> int:
        """Largest memory of any rank."""
        return max((m.peak_bytes for probe in self.probes for m in probe.slices), default=0)


def run_paceline(job: Path) -> TunedJob:
    """Tunes a job from nothing; progress goes to this process's own stderr.

    Args:
        job: The job file; its folder takes the study and the reports.
    """
    command = [sys.executable, "-c", _PACELINE, "run", str(job), "--verify", "--format", "json"]
    ended = subprocess.run(
        [*command, "--output", str(job.parent / "out")],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    try:
        recommendation = json.loads(ended.stdout)
    except ValueError:
        recommendation = {}
    opened = open_job(job)
    with open_storage(default_storage_url(job)) as store:
        study = find_study(store.ledger, opened)
        probes = () if study is None else tuple(store.ledger.probes(study.study_id))
    return TunedJob(code=ended.returncode, recommendation=recommendation, probes=probes)


def report(found: Findings, tuned: TunedJob) -> None:
    """Records what holds for every job that was tuned."""
    found.note("exit_code", tuned.code)
    outcomes = [probe.outcome.value for probe in tuned.probes]
    found.note("outcomes", {name: outcomes.count(name) for name in sorted(set(outcomes))})
    found.note("peak_bytes", tuned.peak_bytes)
    if tuned.recommendation:
        choice = tuned.recommendation["choice"]
        found.note("recommended", choice["configuration"])
        found.note("verified", tuned.recommendation["verified"])
    errors = [m.error for probe in tuned.probes for m in probe.slices if m.error]
    if errors:
        found.note("first_error", errors[0].strip().splitlines()[-1])
    found.expect("recommendation_is_verified", tuned.code == 0 and tuned.is_verified)
