"""Jobs that run the user's own command, as a user calls them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from storage import open_storage
from tests.cli.workplace import PACELINE, TIMEOUT_SECONDS, kill_session, wait_until
from tuner.domain.ledger import ProbeRecord

#: Trains nothing: accuracy rises with samples, the sooner the nearer the rate is to 0.05.
SCRIPT = """
import json, math, os, sys, time
from paceline_client import checkpoint_path, report, should_stop
rate, batch = float(sys.argv[1]), int(sys.argv[2])
step = int(open(sys.argv[3]).read()) if len(sys.argv) > 3 else 0
need = 400 * (1 + batch / 40) * (1 + math.log(rate / 0.05) ** 2)
while step < 100000:
    time.sleep(0.003 + 0.0001 * batch)
    step += 1
    samples = step * batch
    report(step=step, samples=samples)
    if step % 4 == 0:
        report(step=step, samples=samples, value=samples / (samples + 0.25 * need))
    if should_stop():
        break
path = checkpoint_path()
if path:
    open(path, "w").write(str(step))
print("trained", rate, batch, step)
"""
JOB = """
name = "curve"
[workload]
command = "{python} curve.py {{learning_rate}} {{batch_size}}"
{more}
[goal]
target = 0.8
[space]
batch_size = [10, 20, 40]
learning_rate = {{ low = 0.005, high = 0.5 }}
[baseline]
batch_size = 40
learning_rate = 0.02
[budget]
time = "60s"
probes = 6
"""


class Place:
    """A user's folder with a script and its job."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "curve.py").write_text(SCRIPT)
        self.write('resume = "{checkpoint}"')

    def write(self, more: str) -> None:
        (self.folder / "job.toml").write_text(JOB.format(python=sys.executable, more=more))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(PACELINE), *arguments],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def call(self, *arguments: str, seconds: float = TIMEOUT_SECONDS) -> str:
        process = self.start(*arguments)
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            kill_session(process)
        assert process.returncode == 0, err
        return out

    def probes(self) -> list[ProbeRecord]:
        with open_storage(f"sqlite:///{self.folder / 'paceline.db'}") as store:
            return store.ledger.probes(store.ledger.studies()[-1].study_id)

    def scripts(self) -> list[int]:
        """Processes of the script that run."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if "curve.py" in (path / "cmdline").read_text() and (path / "cwd").readlink() == self.folder:
                    found.append(int(path.name))
            except OSError:
                continue
        return found


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize(
    "more",
    [
        pytest.param('resume = "{checkpoint}"', id="resumes"),
        pytest.param("", id="repeats", marks=pytest.mark.slow),
    ],
)
def test_a_command_is_tuned_and_its_own_command_trains_what_was_found(place: Place, more: str) -> None:
    place.write(more)
    answer = json.loads(place.call("run", "job.toml", "--format", "json"))
    choice = answer["choice"]["configuration"]
    assert answer["verified"]["reached"]
    assert answer["choice"]["measured_seconds"] > 0
    line = answer["user_command"]
    assert f"curve.py {choice['learning_rate']} {choice['batch_size']}" in line
    launch = (place.folder / "paceline-out" / "curve" / "launch.sh").read_text()
    # The answer states how long a training has to be that does not stop at the target.
    assert answer["training_samples"] > 0
    folder, _, command = line.partition(" && ")
    assert folder == f"cd {place.folder}"
    assert command in launch
    for probe in place.probes():
        if probe.measurement is not None:
            samples = [point.samples for point in probe.measurement.curve]
            assert samples == sorted(set(samples))
            seconds = [point.training_seconds for point in probe.measurement.curve]
            assert seconds == sorted(seconds)


def check_rows(place: Place, *options: str) -> dict[str, Any]:
    rows = json.loads(place.call("check", "job.toml", "-f", "json", *options))
    return {row["name"]: row["value"] for row in rows}


def test_check_says_what_it_read_and_what_the_job_costs(place: Place) -> None:
    rows = check_rows(place)
    assert rows["step milliseconds"] >= 3
    assert rows["scores"] >= 1
    assert "  ->  " in rows["read"]
    assert "samples" in rows["first score"]
    assert "samples" in rows["next score"]
    assert rows["steps timed between scores"] == "yes"
    assert rows["resume"].startswith("not tried")
    assert 0 < rows["seconds at best"] < 30 < rows["seconds at worst"]
    assert check_rows(place, "--resume")["resume"].startswith("yes: saved at")
    place.write("")
    assert check_rows(place, "--resume")["resume"].startswith("no")


@pytest.mark.slow
def test_a_killed_tuner_leaves_nothing_running_and_goes_on_where_it_was(place: Place) -> None:
    arguments = ("train", "job.toml", "--nodes", "1", "--batch-size", "40", "--learning-rate", "0.005")
    process = place.start(*arguments)
    try:
        database = place.folder / "paceline.db"
        lines = place.folder / "paceline-out" / "curve"
        wait_until(lambda: database.exists() and any(lines.glob("probes/*/*/metrics.jsonl")), "a scoring")
        time.sleep(1.0)
        process.send_signal(signal.SIGKILL)
        process.wait()
        # What the script had saved by then is all there is: it was asked to end, and did not hear of it.
        wait_until(lambda: not place.scripts(), "the script's end")
    finally:
        kill_session(process)
    out = place.call(*arguments)
    assert "samples to target" in out
    (probe,) = place.probes()
    assert probe.measurement is not None
    samples = [point.samples for point in probe.measurement.curve]
    assert samples == sorted(set(samples))
    assert samples[0] == 160
    assert place.scripts() == []


def test_calibrate_says_that_it_needs_a_workload(place: Place) -> None:
    process = place.start("calibrate", "job.toml")
    _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert "the job runs a command" in err


def test_init_writes_an_example_with_its_script(place: Place) -> None:
    out = place.call("init", "--example", "numpy_script", "mine.toml")
    assert "numpy_script.py" in out
    assert (place.folder / "numpy_script.py").read_text().startswith('"""Softmax')
    process = place.start("init", "--example", "numpy_script", "other.toml")
    _, err = process.communicate(timeout=TIMEOUT_SECONDS)
    assert process.returncode == 2
    assert "numpy_script.py already exists" in err
    assert not (place.folder / "other.toml").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", ["own_script", "numpy_script", "lightning_script"])
def test_examples_of_commands_run(place: Place, name: str) -> None:
    if name == "lightning_script":
        pytest.importorskip("lightning", reason="the example needs the package lightning")
    place.call("init", "--example", name, "example.toml")
    answer = json.loads(
        place.call("run", "example.toml", "--format", "json", "--budget", "150s", seconds=500)
    )
    assert answer["choice"]["seconds"]["median"] > 0
    assert f"{name}.py" in answer["user_command"]
