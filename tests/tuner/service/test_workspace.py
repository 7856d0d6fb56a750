from __future__ import annotations

from pathlib import Path

import pytest

from storage import Storage
from tuner.domain.errors import JobError, StorageError
from tuner.domain.job_queue import JobRecord, NewJob
from tuner.service.workspace import collect, materialize

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


def test_a_job_for_remote_trainers_brings_no_files(tmp_path: Path) -> None:
    job = tmp_path / "train.toml"
    job.write_text(COMMAND + '[cluster]\nlauncher = "remote"\n')
    (tmp_path / "train.py").write_text("")
    assert collect(job).files == {}


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


def job_with(store: Storage, **files: bytes) -> JobRecord:
    named = {name.replace("__", "/").replace("_", "."): store.queue.put_file(c) for name, c in files.items()}
    return store.queue.submit(NewJob(name="train", job_file=COMMAND, files=named))[0]


def test_a_workspace_is_written_for_its_user_only_and_again_if_it_differs(
    store: Storage, tmp_path: Path
) -> None:
    job = job_with(store, train_py=b"#!/usr/bin/python\n", data__a_csv=b"1")
    folder = tmp_path / "workspace"
    assert materialize(store.queue, job, folder).read_text() == COMMAND
    modes = {p.relative_to(folder).as_posix(): p.stat().st_mode & 0o777 for p in folder.rglob("*")}
    assert modes == {"data": 0o700, "data/a.csv": 0o600, "train.py": 0o700, "train.toml": 0o600}
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "data" / "a.csv").write_text("changed")
    (folder / "own.log").write_text("of the script")
    materialize(store.queue, job, folder)
    assert (folder / "data" / "a.csv").read_bytes() == b"1"
    assert (folder / "own.log").exists()


def test_links_of_a_script_lead_nothing_out_of_a_workspace(store: Storage, tmp_path: Path) -> None:
    job = job_with(store, data__a_csv=b"1", b_csv=b"2")
    (outside := tmp_path / "outside").mkdir()
    (outside / "b.csv").write_text("of somebody else")
    (folder := tmp_path / "workspace").mkdir()
    (folder / "data").symlink_to(outside)
    (folder / "b.csv").symlink_to(outside / "b.csv")
    materialize(store.queue, job, folder)
    assert [p.name for p in outside.iterdir()] == ["b.csv"]
    assert (outside / "b.csv").read_text() == "of somebody else"
    assert (folder / "b.csv").read_bytes() == b"2"


class OtherFiles:
    """A queue with other files than those of the job."""

    def __init__(self, name: str, content: bytes) -> None:
        self.name, self.content = name, content

    def job_files(self, *_: object) -> dict[str, str]:
        return {self.name: "0" * 64}

    def file(self, _digest: str) -> bytes:
        return self.content


@pytest.mark.parametrize("name", ["../a", "/tmp/a", "a/../../b", "a\0b", ""])
def test_a_path_out_of_the_workspace_is_never_written(store: Storage, tmp_path: Path, name: str) -> None:
    with pytest.raises(JobError, match="is not a path inside the workspace"):
        materialize(OtherFiles(name, b""), job_with(store), tmp_path / "workspace")  # type: ignore[arg-type]
    assert list((tmp_path / "workspace").iterdir()) == []


def test_damaged_content_is_refused(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"a\.csv: the SHA-256 of its content in the database is .*, not 000"
    ):
        materialize(OtherFiles("a.csv", b"1"), job_with(store), tmp_path)  # type: ignore[arg-type]
