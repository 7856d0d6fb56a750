"""What a check of a command keeps, and from whom."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tuner.service.check_command import check_command, command_rows
from tuner.service.opening import open_job

JOB = """[workload]
command = "{python} train.py {{batch_size}} {{learning_rate}}"
one_per = "job"
[workload.metrics]
source = "output"
pattern = 'step (?P<step>\\d+) acc=(?P<value>\\S+)'
[goal]
metric = "accuracy"
target = 0.9
[space]
batch_size = [8]
learning_rate = [0.1]
"""


def test_a_check_leaves_nothing_that_another_check_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    for name, value, read in (("percent", "50%", 0.5), ("fraction", "0.4", 0.4)):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "job.toml").write_text(JOB.format(python=sys.executable))
        (folder / "train.py").write_text(f"print('step 10 acc={value}')\nprint('step 20 acc={value}')\n")
        opened = open_job(folder / "job.toml")
        check = check_command(opened)
        assert dict(command_rows(opened, check))["last accuracy"] == pytest.approx(read)
        assert list((tmp_path / "tmp").iterdir()) == []
