"""Slices of the user's own script that end by a number of scores."""

from __future__ import annotations

import json

import pytest

from search_spaces import Configuration
from tests.tuner.probes.commands.bench import (
    CONFIGURATION,
    PYTHON,
    SCRIPT,
    Bench,
    LosesOneThatSaved,
    job_of,
    repeating,
    resumable,
)
from tests.tuner.probes.conformance import ProberConformance
from tuner.domain.measurement import Measurement, Outcome
from tuner.job import Job
from tuner.probes import Until
from tuner.probes.commands.prober import CommandProber
from tuner.probes.commands.task import checkpoint_of

#: After the reports of a test the script trains on in silence: only the tuner can end its slice. It sends
#: SIGTERM half a second after a slice is over: a slice that ends too early misses reports that come later.
SILENCE = "\ntime.sleep(600)\n"
BOTH = r"step (?P<step>\d+) acc (?P<value>\S+)"


class TestCommandProber(ProberConformance):
    @pytest.fixture(params=["resumes", "starts over"])
    def prober(self, bench: Bench, request: pytest.FixtureRequest) -> CommandProber:
        return bench.prober(resumable() if request.param == "resumes" else repeating())

    @pytest.fixture
    def configuration(self) -> Configuration:
        return CONFIGURATION


def printing(bench: Bench, body: str, pattern: str | list[str] = BOTH, **more: object) -> Job:
    """A job whose script runs `body`, is then silent, and asks nothing of the client."""
    bench.write("prints.py", "import os, sys, time\n" + body + SILENCE)
    metrics = {"source": "output", "pattern": pattern}
    return job_of(f"{PYTHON} prints.py {{batch_size}}", metrics=metrics, grace=1.0, **more)


def samples_of(measurement: Measurement) -> list[int]:
    assert measurement.outcome is Outcome.PAUSED, measurement.error
    return [point.samples for point in measurement.curve]


@pytest.mark.parametrize("scores", [1, 2])
def test_a_script_that_knows_nothing_of_slices_is_ended_after_its_scores(bench: Bench, scores: int) -> None:
    body = f"""
print("step 0 acc 0.1", flush=True)  # the untrained model
for number in range(1, {scores} + 1):
    time.sleep(0.7)
    print("step", 10 * number, "acc", 0.1 + number / 100, flush=True)
"""
    seen = bench.slice(printing(bench, body), Until(scores=scores))
    assert samples_of(seen) == [0, *range(100, 100 * scores + 1, 100)]


def test_a_lump_with_more_scores_ends_a_slice_although_training_went_on(bench: Bench) -> None:
    body = """
print("step 1")
time.sleep(0.3)
lines = [f"step {step}" + (f" acc {step / 1000}" if step % 10 == 0 else "") for step in range(2, 49)]
os.write(1, ("\\n".join(lines) + "\\n").encode())
"""
    seen = bench.slice(printing(bench, body, [r"step (?P<step>\d+)", r"acc (?P<value>\S+)"]), Until(scores=2))
    assert samples_of(seen) == [100, 200, 300, 400]
    assert seen.samples == 480


def test_all_scores_of_a_line_count(bench: Bench) -> None:
    body = 'print("step 10 acc 0.1\\rstep 20 acc 0.2\\rstep 30 acc 0.3", flush=True)'
    assert samples_of(bench.slice(printing(bench, body), Until(scores=3))) == [100, 200, 300]


def test_several_values_for_one_position_are_one_score(bench: Bench) -> None:
    body = """
for step, value in ((10, 0.1), (10, 0.11), (10, 0.12), (20, 0.2)):
    print("step", step, "acc", value, flush=True)
    time.sleep(0.4)
"""
    assert samples_of(bench.slice(printing(bench, body), Until(scores=2))) == [100, 200]


def test_a_score_that_comes_late_counts(bench: Bench) -> None:
    body = """
for step in range(10, 60, 10):
    print("step", step, flush=True)
    time.sleep(0.05)
print("step 20 acc 0.2", flush=True)
"""
    job = printing(bench, body, r"step (?P<step>\d+)(?: acc (?P<value>\S+))?")
    assert samples_of(bench.slice(job, Until(scores=1))) == [200]


def test_a_score_that_is_placed_by_the_next_line_counts_once(bench: Bench) -> None:
    body = """
for epoch in range(2):
    time.sleep(0.4)
    print("acc", 0.1 + epoch / 10, flush=True)
    print("epoch", epoch + 1, flush=True)
"""
    patterns = [r"epoch (?P<epoch>\d+)", r"acc (?P<value>\S+)"]
    seen = bench.slice(printing(bench, body, patterns, epoch_samples=100), Until(scores=2))
    assert samples_of(seen) == [100, 200]


def test_scores_close_to_each_other_are_all_in_the_curve(bench: Bench) -> None:
    body = 'for step in range(1000, 1004):\n    print("step", step, "acc", step / 1e4, flush=True)\n'
    seen = bench.slice(printing(bench, body), Until(scores=4))
    assert samples_of(seen) == [10_000, 10_010, 10_020, 10_030]


def test_scores_that_are_found_again_do_not_count(bench: Bench) -> None:
    body = """
again = os.path.exists("was_here")
open("was_here", "w").close()
for number in range(1, 4 if again else 3):
    time.sleep(0.3)
    print("step", 10 * number, "acc", number / 100, flush=True)
"""
    job = printing(bench, body)
    assert samples_of(bench.slice(job, Until(scores=2))) == [100, 200]
    second = bench.slice(job, Until(scores=1))
    assert samples_of(second) == [100, 200, 300]
    assert second.restart_seconds == second.curve[1].training_seconds


def test_scores_of_a_lost_job_count_once(bench: Bench) -> None:
    # It saves an older state, so that the next job finds the score of step 10 again.
    saves = SCRIPT.replace(
        "    if should_stop():",
        """    if step == 12:
        with open(checkpoint_path() + ".new", "w") as file:
            json.dump({"step": 7}, file)
        os.replace(checkpoint_path() + ".new", checkpoint_path())
        time.sleep(0.3)
    if should_stop():""",
    )
    bench.write("saves.py", saves)
    launcher = LosesOneThatSaved(checkpoint_of(bench.folder / "probe"))
    job = job_of(f"{PYTHON} saves.py batch={{batch_size}} delay=0.03", resume="resume={checkpoint}")
    seen = bench.slice(job, Until(scores=4), launcher=launcher)
    assert len(launcher.submitted) == 2
    assert samples_of(seen)[:5] == [0, 50, 100, 150, 200]


def test_a_script_that_ends_before_its_scores_is_stopped(bench: Bench) -> None:
    seen = bench.slice(resumable("steps=12"), Until(scores=3))
    assert (seen.outcome, seen.samples) == (Outcome.STOPPED, 120)


def test_the_target_ends_a_slice_before_its_scores(bench: Bench) -> None:
    seen = bench.slice(resumable(target=0.1), Until(scores=1000))
    assert seen.outcome is Outcome.REACHED


def test_the_script_gets_the_number_and_what_is_known(bench: Bench) -> None:
    first = bench.slice(resumable("{until_scores}={scored_samples}"), Until(scores=1))
    bench.slice(resumable(), Until(scores=2))
    values = [
        json.loads(path.read_text())
        for path in sorted((bench.folder / "probe" / "slices").glob("*/values.json"))
    ]
    assert [(each["until_scores"], each["scored_samples"]) for each in values] == [(1, 0), (2, first.samples)]
    assert "1=0" in bench.commands()[0]
    assert json.loads((bench.folder / "probe" / "probe.json").read_text())["until"] == {"scores": 2}
