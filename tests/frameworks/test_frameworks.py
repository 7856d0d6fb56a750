"""Each framework itself, through the whole life of a job: it is checked, killed, resumed and exported.

The scripts in `jobs/` are ordinary scripts of their frameworks: none imports Paceline's client.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from storage import open_storage
from tests.cli.workplace import processes_in
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

JOBS = Path(__file__).with_name("jobs")
PACELINE = Path(sys.executable).with_name("paceline")
#: The longest that one command may take, with other tests on the same cores.
TIMEOUT_SECONDS = 240.0


@dataclass(frozen=True, kw_only=True)
class Framework:
    """What a framework needs, and how its training shows that it trains.

    Args:
        packages: Modules without which the test is skipped.
        trained: What the exported training prints, or writes to `log`, after some epochs.
        saved: What the exported training saves, as a pattern of paths.
        log: The file with scores of a framework that prints none, as a pattern of paths.
        target: The target of `paceline export`.
    """

    packages: tuple[str, ...]
    trained: str
    saved: str
    log: str = ""
    target: str = "torchrun"


FRAMEWORKS = {
    "hf_trainer": Framework(
        packages=("transformers", "accelerate"),
        trained=r"'eval_accuracy': .*'epoch': '?2",
        saved="checkpoint/checkpoint-*/trainer_state.json",
    ),
    "accelerate": Framework(
        packages=("accelerate", "tensorboard"),
        trained=r"epoch 1: \{'accuracy'",
        saved="checkpoint/checkpoints/checkpoint_*/model.safetensors",
    ),
    "lightning_trainer": Framework(
        packages=("lightning",),
        trained=r"\n2,\d+,",
        saved="checkpoint/last.ckpt",
        log="checkpoint/logs/version_0/metrics.csv",
    ),
    "lightning_cli": Framework(
        packages=("lightning", "jsonargparse", "tensorboard"),
        trained=r"(?s:val_acc.*){2}",
        saved="checkpoint/lightning_logs/version_0/config.yaml",
        log="checkpoint/lightning_logs/version_0/events*",
    ),
    "keras": Framework(
        packages=("keras",), trained=r"val_accuracy: (?s:.*)Epoch 3/", saved="checkpoint/*.weights.h5"
    ),
    "timm_style": Framework(
        packages=("torch",), trained=r"Acc@1: (?s:.*)Train: 2 \[", saved="checkpoint/last.pth.tar"
    ),
    "torchrun_ddp": Framework(packages=("torch",), trained=r"(?s: \*   Acc@1 .*){2}", saved="checkpoint"),
    "fsdp2": Framework(
        packages=("torch",), trained=r"validate step: 100 ", saved="checkpoint/step-50/.metadata"
    ),
    "flax": Framework(
        packages=("jax", "flax", "optax"),
        trained=r"epoch:  2, .*test_accuracy",
        saved="checkpoint/state.pickle",
    ),
    "sklearn": Framework(
        packages=("sklearn",), trained=r"'epoch': 2, 'accuracy'", saved="checkpoint", target="env"
    ),
    "lightgbm": Framework(packages=("lightgbm",), trained=r"\[30\]\s+valid_0's", saved="checkpoint"),
}


@dataclass(frozen=True)
class Life:
    """A user's folder with a script and its job.

    Args:
        folder: The folder.
    """

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The shell's variables: one thread, the programs of this environment, and no flags of Paceline."""
        plain = {name: value for name, value in os.environ.items() if not name.startswith("PACELINE_")}
        return plain | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def start(self, *words: str, output: str) -> subprocess.Popen[bytes]:
        """Starts a command in a session of its own; what it prints is in `output`."""
        with (
            (self.folder / f"{output}.out").open("wb") as out,
            (self.folder / f"{output}.err").open("wb") as err,
        ):
            return subprocess.Popen(
                words,
                cwd=self.folder,
                env=self.environment,
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def printed(self, output: str) -> str:
        """Everything that a command has printed."""
        return "".join(
            (self.folder / f"{output}.{stream}").read_text(errors="replace") for stream in ("out", "err")
        )

    def paceline(self, *arguments: str) -> Any:
        """Calls a command, which must succeed, and returns its JSON."""
        process = self.start(str(PACELINE), *arguments, "--format", "json", output=arguments[0])
        try:
            code = process.wait(TIMEOUT_SECONDS)
        finally:
            kill(process)
        assert code == 0, self.printed(arguments[0])
        return json.loads((self.folder / f"{arguments[0]}.out").read_text())

    def probes(self) -> list[ProbeRecord]:
        """The probes of the study, none before there is one."""
        if not (self.folder / "paceline.db").exists():
            return []
        with open_storage(f"sqlite:///{self.folder / 'paceline.db'}") as store:
            studies = store.ledger.studies()
            return list(store.ledger.probes(studies[-1].study_id)) if studies else []

    def slices(self) -> dict[int, tuple[Measurement, ...]]:
        """The slices of each probe that has one."""
        return {probe.probe_id: tuple(probe.slices) for probe in self.probes() if probe.slices}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kills a command and what it started in its session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], words: Callable[[], str]) -> None:
    """Waits for something to come true; what waits in vain fails with the words."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, words()
        time.sleep(0.3)  # the conditions read a database, on the cores that train


@pytest.fixture
def life(request: pytest.FixtureRequest, tmp_path: Path) -> Life:
    name = request.param
    for package in FRAMEWORKS[name].packages:
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    shutil.copytree(JOBS / name, tmp_path, dirs_exist_ok=True)
    return Life(tmp_path)


def check(life: Life) -> None:
    """`paceline check --resume` reads a score of the script, and sees it resume."""
    rows = {row["name"]: row["value"] for row in life.paceline("check", "job.toml", "--resume")}
    assert rows["scores"] > 0
    assert rows["resume"].startswith("yes"), rows


def run_and_kill(life: Life) -> dict[int, tuple[Measurement, ...]]:
    """Kills `paceline run` with SIGKILL while it trains, and returns what was paid for until then."""
    process = life.start(str(PACELINE), "run", "job.toml", output="killed")

    def is_training() -> bool:
        assert process.poll() is None, life.printed("killed")
        return bool(life.slices()) and any(probe.lease is not None for probe in life.probes())

    wait_until(is_training, lambda: life.printed("killed"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not processes_in(life.folder), lambda: "a rank outlives the killed tuner")
    return life.slices()


def run_again(life: Life, before: dict[int, tuple[Measurement, ...]]) -> None:
    """The same command resumes what was paid for, and finds an answer whose run reached the target."""
    answer = life.paceline("run", "job.toml")
    assert answer["verified"]["reached"]
    after = life.slices()
    assert {number: after[number][: len(slices)] for number, slices in before.items()} == before
    assert any(m.outcome is Outcome.REACHED for slices in after.values() for m in slices)
    resumed = [m for number, slices in before.items() for m in after[number][len(slices) :]]
    assert not any(m.resume_refused for m in resumed)
    trials = {row["trial"]: row for row in life.paceline("trials", "job.toml")}
    assert len(trials) >= len(before)
    assert sum(row["slices"] for row in trials.values()) >= sum(map(len, before.values())) + 1


def export(life: Life, framework: Framework) -> None:
    """What is exported trains."""
    file = life.folder / "exported"
    arguments = ("export", "job.toml", "--target", framework.target, "--output", str(file))
    made = life.start(str(PACELINE), *arguments, output="export")
    assert made.wait(TIMEOUT_SECONDS) == 0, life.printed("export")
    words = ("sh", str(file))
    if framework.target == "env":
        assert "First, in the folder of the script: mkdir -p output" in file.read_text()
        words = ("sh", "-c", "mkdir -p output; set -a; . ./exported; set +a; exec python train.py")
    elif "usage: sh" in file.read_text():
        # The answer uses both nodes, which are processes of this host.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        second = f"sh exported 1 127.0.0.1 {port} >second.log 2>&1 &"
        words = ("sh", "-c", f"{second} exec sh exported 0 127.0.0.1 {port}")
    process = life.start(*words, output="training")
    try:

        def has_trained() -> bool:
            printed = life.printed("training")
            assert process.poll() in (None, 0), printed
            if framework.log:
                printed = "".join(
                    path.read_text(errors="replace") for path in life.folder.glob(framework.log)
                )
            return re.search(framework.trained, printed) is not None and any(
                life.folder.glob(framework.saved)
            )

        wait_until(has_trained, lambda: life.printed("training"))
    finally:
        kill(process)


@pytest.mark.parametrize(
    ("life", "framework"),
    list(FRAMEWORKS.items()),
    indirect=["life"],
    ids=FRAMEWORKS,
)
def test_a_job_is_checked_killed_resumed_and_exported(life: Life, framework: Framework) -> None:
    check(life)
    before = run_and_kill(life)
    run_again(life, before)
    export(life, framework)


def test_every_job_is_run() -> None:
    assert {path.name for path in JOBS.iterdir() if path.is_dir()} == set(FRAMEWORKS)
