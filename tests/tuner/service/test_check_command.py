"""What a check of a command keeps, and from whom."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tuner.service.check_command import check_command, command_rows, without_score
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


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("source = \"output\"\npattern = 'nothing (?P<step>\\d+) like (?P<value>\\S+)'", "is likely wrong"),
        (
            'source = "csv"\npath = "log.csv"',
            "was read from log.csv (workload.metrics.source = 'csv')",
        ),
    ],
)
def test_a_check_that_read_no_line_states_no_start_up_and_shows_what_was_printed(
    tmp_path: Path, source: str, words: str
) -> None:
    text = JOB.format(python=sys.executable)
    metrics = text[text.index("source") : text.index("[goal]")]
    (tmp_path / "job.toml").write_text(text.replace(metrics, source + "\n"))
    (tmp_path / "train.py").write_text(
        "import time\nprint('device: cpu')\nfor step in range(1000):\n"
        "    print(f'step {step} quality={step / 10}', flush=True)\n    time.sleep(0.01)\n"
    )
    opened = open_job(tmp_path / "job.toml")
    check = check_command(opened, wait_seconds=0.5)
    rows = dict(command_rows(opened, check))
    assert rows["start-up seconds"] is None
    assert rows["steps timed between scores"] == "unknown"
    advice = without_score(check, 0.5, opened.job.command.metrics)
    assert words in advice
    assert "\n  device: cpu\n  step " in advice
    assert "quality=" in advice.splitlines()[-2]


RESUMES = """
import sys, time
from pathlib import Path
path = Path(sys.argv[1])
step = int(path.read_text()) if path.exists() and "{resumes}" else 0
while step < 2000:
    step += 1
    print(f"step {{step}} acc={{step / 1e6}}", flush=True)
    if step % 10 == 0:
        partial = Path(f"{{path}}.partial")
        partial.write_text(str(step))
        partial.replace(path)
    time.sleep(0.02)
"""


@pytest.mark.parametrize(("resumes", "words"), [("yes", "yes: "), ("", "no: the script started over")])
def test_a_checkpoint_older_than_the_last_report_is_a_resume(
    tmp_path: Path, resumes: str, words: str
) -> None:
    text = JOB.format(python=sys.executable).replace("train.py", "train.py {checkpoint}")
    (tmp_path / "job.toml").write_text(text.replace("[workload.metrics]", 'resume = ""\n[workload.metrics]'))
    (tmp_path / "train.py").write_text(RESUMES.format(resumes=resumes))
    check = check_command(open_job(tmp_path / "job.toml"), resume=True)
    assert check.resume.startswith(words)


def test_a_script_that_prints_its_epoch_at_its_beginning_resumes(tmp_path: Path) -> None:
    """As Keras does: it saved after its only epoch, and begins with the next one."""
    text = JOB.format(python=sys.executable).replace("train.py", "train.py {checkpoint}")
    text = text.replace(
        "'step (?P<step>\\d+) acc=(?P<value>\\S+)'", "['Epoch (?P<epoch>\\d+)/', 'acc=(?P<value>\\S+)']"
    )
    text = text.replace("[workload.metrics]", 'resume = ""\nepoch_samples = 80\n[workload.metrics]')
    (tmp_path / "job.toml").write_text(text)
    (tmp_path / "train.py").write_text(
        "import sys, time\nfrom pathlib import Path\npath = Path(sys.argv[1])\n"
        "epoch = int(path.read_text()) if path.exists() else 0\n"
        "while epoch < 20:\n    epoch += 1\n    print(f'Epoch {epoch}/20', flush=True)\n    time.sleep(1.0)\n"
        "    path.write_text(str(epoch))\n    print(f'acc={epoch / 100}', flush=True)\n"
    )
    check = check_command(open_job(tmp_path / "job.toml"), resume=True)
    assert check.resume.startswith("yes: saved at")


def test_a_script_that_refuses_its_folder_is_said_to_and_why(tmp_path: Path) -> None:
    text = JOB.format(python=sys.executable).replace("train.py", "train.py {checkpoint}")
    (tmp_path / "job.toml").write_text(text.replace("[workload.metrics]", 'resume = ""\n[workload.metrics]'))
    refuses = "if path.exists():\n    raise SystemExit(f'RuntimeError: expected {path} to NOT exist')\n"
    script = RESUMES.format(resumes="").replace("while step", refuses + "while step")
    (tmp_path / "train.py").write_text(script)
    check = check_command(open_job(tmp_path / "job.toml"), resume=True)
    assert check.resume.startswith("no: the script started over; the script refused")
    assert "to NOT exist" in check.resume
