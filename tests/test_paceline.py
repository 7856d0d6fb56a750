"""The public API: its names, what its import costs, and the example of its page."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import paceline_client
import pytest

import paceline
from tests.recorded_grid import grid
from tuner.recordings.file import write_recording

PAGE = (Path(__file__).resolve().parents[1] / "docs/reference/python_api.md").read_text(encoding="utf-8")
#: A name that goes or changes breaks scripts of users: remove none without a version in which it warns.
NAMES = [
    *("METRICS", "AdamWSettings", "ConstantSchedule", "CosineSchedule", "DataNotFoundError"),
    *("InfeasibleError", "JobError", "Metric", "OpenedJob", "OptimizerSettings", "ProbeError"),
    *("Recommendation", "RunResult", "SGDSettings", "ScheduleSettings", "SearchEvent", "StepSchedule"),
    *("StorageError", "TunerError", "Workload", "begin", "checkpoint_path", "gradient_noise"),
    *("hugging_face_callback", "lightning_callback", "open_job", "report", "run_job", "should_stop"),
    "values",
]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_recording(grid(), tmp_path / "runs.jsonl.gz")
    path = tmp_path / "job.toml"
    path.write_text('[probe]\nkind = "recorded"\nrecording = "runs.jsonl.gz"\n[goal]\nminimize = "seconds"\n')
    return path


def test_the_public_names_are_these() -> None:
    assert paceline.__all__ == NAMES
    assert dir(paceline) == sorted(NAMES)
    assert [name for name in NAMES if getattr(paceline, name, None) is None] == []


def test_the_page_describes_every_name_and_no_other() -> None:
    rows = re.findall(r"^\| (`.+?) \|", PAGE, flags=re.MULTILINE)
    assert sorted(name for cells in rows for name in re.findall(r"`(\w+)`", cells)) == sorted(NAMES)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'paceline' has no attribute 'tune'"):
        paceline.tune  # noqa: B018


def test_the_client_is_the_one_that_scripts_import() -> None:
    assert set(paceline_client.__all__) < set(NAMES)
    assert paceline.report is paceline_client.report


def test_importing_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, paceline\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'optuna', 'sqlalchemy', 'tuner'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "paceline.Workload\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_old_import_path_of_workloads_works_and_warns() -> None:
    code = (
        "import warnings\n"
        "warnings.simplefilter('error', DeprecationWarning)\n"
        "try:\n"
        "    import tuner.workload\n"
        "except DeprecationWarning as warning:\n"
        "    assert 'import from paceline' in str(warning)\n"
        "else:\n"
        "    raise AssertionError\n"
        "warnings.simplefilter('ignore')\n"
        "import paceline, tuner.workload\n"
        "names = [name for name in vars(tuner.workload) if name[0] != '_' and name != 'warnings']\n"
        "assert len(names) == 11\n"
        "assert all(getattr(tuner.workload, n) is getattr(paceline, n) for n in names)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_the_notebook_of_the_page_runs(job: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (cell,) = re.findall(r"^```python notebook\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    variables: dict[str, object] = {}
    exec(cell, variables)
    printed = capsys.readouterr().out
    assert printed.startswith("job (1, 2)\n")
    assert "plan " in printed
    result = variables["result"]
    assert isinstance(result, paceline.RunResult)
    assert result.recommendation.verified is not None
    assert (job.parent / "study.db").is_file()
    assert result.files["report.html"] == job.parent / "out" / "report.html"


@pytest.mark.slow
def test_a_job_called_again_resumes_its_study(job: Path) -> None:
    first = paceline.run_job(job)
    again = paceline.run_job(job, storage=f"sqlite:///{job.parent / 'paceline.db'}")
    assert again.study.study_id == first.study.study_id
    assert again.recommendation.choice == first.recommendation.choice
    assert paceline.run_job(job, fresh=True).study.name == "job-2"


def test_what_is_wrong_is_raised_as_documented(job: Path) -> None:
    with pytest.raises(paceline.JobError, match="no such file"):
        paceline.open_job(job.parent / "none.toml")
    with pytest.raises(paceline.JobError, match="budget"):
        paceline.run_job(job, budget="soon")
    with pytest.raises(paceline.StorageError, match="needs the folder"):
        paceline.run_job(job, storage=job.parent / "none" / "study.db")
