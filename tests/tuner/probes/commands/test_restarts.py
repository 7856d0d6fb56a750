"""Slices that train a script's run again from its start: the newest complete pass counts."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.tuner.launchers.conformance import wait_until
from tests.tuner.probes.commands.bench import CONFIGURATION, Bench, job_of
from tuner.domain.measurement import CurvePoint, Outcome, Purpose, merged
from tuner.job import Job
from tuner.probes import Until
from tuner.probes.commands.slice_curve import known_point, rebuild_records
from tuner.probes.probe_folder import ProbeFolder

#: A step of ten samples sleeps for `pace` seconds.
SCRIPT = """
import json, os, sys, time
from paceline_client import checkpoint_path, report, should_stop

options = dict(word.split("=") for word in sys.argv[1:])
pace, gain = float(options["pace"]), float(options.get("gain", 1))
step = 0
if "resume" in options:
    step = json.load(open(options["resume"]))["step"]
silent = int(options.get("silent", 0))
while step < int(options.get("steps", 100000)):
    time.sleep(pace)
    step += 1
    value = gain * step / (step + 100) if step % 5 == 0 and 10 * step > silent else None
    report(step=step, samples=10 * step, value=value)
    if should_stop():
        break
with open(checkpoint_path(), "w") as file:
    json.dump({"step": step}, file)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.write("train.py", SCRIPT)
    yield bench
    bench.close()


def job(options: str, **more: object) -> Job:
    return job_of(f"{sys.executable} train.py {options}", **more)


def is_faster(curve: Sequence[CurvePoint], than: Sequence[CurvePoint]) -> bool:
    """Whether a curve is clearly ahead in time of another one, at each place of that."""
    seconds = {point.samples: point.training_seconds for point in curve}
    return all(seconds[point.samples] < 0.7 * point.training_seconds for point in than)


def is_trained(curve: Sequence[CurvePoint], seconds_per_sample: float) -> bool:
    """Whether a curve's clock ascends, and no place took less than its steps."""
    seconds = [point.training_seconds for point in curve]
    least = [0.95 * seconds_per_sample * point.samples for point in curve]
    return seconds == sorted(seconds) and all(a >= b for a, b in zip(seconds, least, strict=True))


@pytest.mark.slow
def test_a_fast_second_pass_replaces_the_curve_and_clock_of_a_slow_one(bench: Bench) -> None:
    first = bench.slice(job("pace=0.05"), Until(samples=200))
    second = bench.slice(job("pace=0.01", target=0.25), Until(samples=10**6))
    assert second.outcome is Outcome.REACHED, second.error
    both = merged([first, second])
    # A value of 1 / 4 comes after 34 steps, and is scored after 35.
    assert [point.samples for point in both.curve] == list(range(50, 351, 50))
    assert both.curve == second.curve
    assert is_faster(both.curve, first.curve)
    assert is_trained(both.curve, 0.001)
    assert both.training_seconds >= both.curve[-1].training_seconds
    assert second.restart_seconds is not None
    assert second.restart_seconds < 0.7 * first.training_seconds
    assert second.repeated_seconds == pytest.approx(second.restart_seconds, abs=0.05)
    assert known_point(bench.folder / "probe").seconds == second.training_seconds
    assert ProbeFolder(bench.folder / "probe").reported_points == list(both.curve)


def test_a_run_that_continues_on_another_host_without_its_files_counts_what_it_repeats(bench: Bench) -> None:
    first = bench.slice(job("pace=0.01"), Until(samples=200))
    shutil.rmtree(bench.folder / "probe")
    rebuild_records(bench.folder / "probe", first)
    second = bench.slice(job("pace=0.01"), Until(samples=400))
    assert second.restart_seconds is not None
    assert second.repeated_seconds == pytest.approx(second.restart_seconds, abs=0.05)
    both = merged([first, second])
    assert both.samples == second.samples >= 400
    assert both.curve == second.curve


@pytest.mark.slow
def test_a_run_that_resumes_keeps_its_joined_curve(bench: Bench) -> None:
    resume = "resume={checkpoint}"
    first = bench.slice(job("pace=0.05", resume=resume), Until(samples=200))
    second = bench.slice(job("pace=0.01", resume=resume), Until(samples=400))
    assert second.restart_seconds is None
    assert second.curve[0].samples > first.curve[-1].samples
    both = merged([first, second])
    assert both.curve == first.curve + second.curve
    assert second.curve[0].training_seconds > first.training_seconds


def test_a_pass_that_does_not_get_as_far_changes_nothing(bench: Bench) -> None:
    first = bench.slice(job("pace=0.01"), Until(samples=300))
    second = bench.slice(job("pace=0.01 steps=20"), Until(samples=600))
    assert second.outcome is Outcome.STOPPED, second.error
    assert second.restart_seconds is None
    assert second.training_seconds == first.training_seconds
    assert merged([first, second]).curve == first.curve


@pytest.mark.slow
def test_a_cancelled_pass_replaces_nothing(bench: Bench) -> None:
    first = bench.slice(job("pace=0.05"), Until(samples=100))
    prober = bench.prober(job("pace=0.01"))
    handle = prober.start(CONFIGURATION, Purpose.STATISTICS, Until(samples=10**6), bench.folder / "probe")
    wait_until(lambda: prober.poll(handle).samples > 200, "progress")
    prober.cancel(handle)
    second = prober.poll(handle)
    assert second.outcome is Outcome.STOPPED
    assert second.restart_seconds is None
    assert second.training_seconds > first.training_seconds
    third = bench.slice(job("pace=0.01"), Until(samples=second.samples + 100))
    assert third.restart_seconds is not None
    assert is_faster(merged([first, second, third]).curve, first.curve)


@pytest.mark.slow
def test_each_complete_pass_replaces_the_one_before(bench: Bench) -> None:
    found = [
        bench.slice(job(f"pace={pace}"), Until(samples=100 * n))
        for n, pace in ((1, 0.1), (2, 0.03), (4, 0.01))
    ]
    assert merged(found).curve == found[-1].curve
    assert is_trained(found[-1].curve, 0.001)
    for before, after in itertools.pairwise(found):
        assert is_faster(after.curve, before.curve)
        assert after.restart_seconds is not None
        assert after.restart_seconds < before.training_seconds


@pytest.mark.slow
def test_a_second_pass_may_reach_the_target_before_the_first_one_ended(bench: Bench) -> None:
    first = bench.slice(job("pace=0.01 gain=0.5", target=0.25), Until(samples=500))
    assert first.outcome is Outcome.PAUSED, first.error
    second = bench.slice(job("pace=0.01", target=0.25), Until(samples=600))
    assert second.outcome is Outcome.REACHED, second.error
    assert next(p.samples for p in merged([first, second]).curve if p.value >= 0.25) == 350


@pytest.mark.slow
def test_known_scores_that_a_script_leaves_out_get_the_clock_of_its_pass(bench: Bench) -> None:
    first = bench.slice(job("pace=0.05"), Until(samples=200))
    second = bench.slice(job("pace=0.01 silent={scored_samples}"), Until(samples=400))
    both = merged([first, second])
    assert [point.value for point in both.curve][: len(first.curve)] == [p.value for p in first.curve]
    assert is_faster(both.curve, first.curve)
    assert is_trained(both.curve, 0.001)
