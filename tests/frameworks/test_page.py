"""The page on frameworks shows the jobs that are tested, and they load without a framework."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tuner.job import load_job

JOBS = Path(__file__).with_name("jobs")
NAMES = sorted(path.parent.name for path in JOBS.glob("*/job.toml"))
PAGE = Path(__file__).parents[2] / "docs" / "guides" / "frameworks.md"


def test_the_page_shows_every_job_as_it_is_tested() -> None:
    text = PAGE.read_text(encoding="utf-8")
    shown = dict(re.findall(r"^```toml (\w+)/job\.toml\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL))
    assert shown == {name: (JOBS / name / "job.toml").read_text(encoding="utf-8") for name in NAMES}
    assert len(shown) == 11


@pytest.mark.parametrize(
    "name",
    [
        # Event files need the package that reads them.
        pytest.param(name, marks=pytest.mark.slow)
        if job["workload"]["metrics"].get("source") == "tensorboard"
        else name
        for name, job in ((name, tomllib.loads((JOBS / name / "job.toml").read_text())) for name in NAMES)
    ],
)
def test_a_job_loads_and_its_present_settings_can_run(name: str) -> None:
    job = load_job(JOBS / name / "job.toml")
    assert job.can_resume
    baseline = job.baseline_configuration()
    assert baseline is not None
    assert job.search_space().is_runnable(baseline)


@pytest.mark.parametrize("name", NAMES)
def test_a_script_does_not_use_the_client(name: str) -> None:
    (script,) = (JOBS / name).glob("*.py")
    assert "paceline" not in script.read_text(encoding="utf-8").lower()
