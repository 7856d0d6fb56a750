from __future__ import annotations

from pathlib import Path

import pytest

from tuner.domain.errors import JobError
from tuner.service.workspace import collect

COMMAND = """
[workload]
command = "{python} train.py --lr {learning_rate} --batch-size {batch_size} > run.log"
epoch_samples = 1000
[goal]
metric = "loss"
target = 0.1
[space]
batch_size = [32]
learning_rate = [0.1]
"""


def test_the_script_of_a_command_is_collected_with_what_it_imports(tmp_path: Path) -> None:
    job = tmp_path / "train.toml"
    job.write_text(COMMAND)
    (tmp_path / "train.py").write_text("import model\nimport numpy\n")
    (tmp_path / "model.py").write_text("")
    (tmp_path / "other.py").write_text("")
    (tmp_path / "run.log").write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.csv").write_text("1")
    found = collect(job, extra=[tmp_path / "data"])
    assert (found.name, found.job_file) == ("train", COMMAND)
    assert sorted(found.files) == ["data/a.csv", "model.py", "train.py"]


def test_files_outside_the_folder_of_the_job_are_refused(tmp_path: Path) -> None:
    job = tmp_path / "jobs" / "train.toml"
    job.parent.mkdir()
    job.write_text(COMMAND)
    (job.parent / "train.py").write_text("")
    (tmp_path / "secret.txt").write_text("")
    with pytest.raises(JobError, match=r"secret\.txt is not below .*/jobs"):
        collect(job, extra=[tmp_path / "secret.txt"])
    (job.parent / "link.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(JobError, match=r"secret\.txt is not below"):
        collect(job, extra=[job.parent / "link.txt"])
    with pytest.raises(JobError, match="there is no such file"):
        collect(job, extra=[job.parent / "none"])


def test_a_bundled_workload_needs_no_files(tmp_path: Path) -> None:
    job = Path("examples/digits.toml").resolve()
    assert collect(job).files == {}
