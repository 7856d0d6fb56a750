"""No decision rests on what was not paid for: what a recording holds beyond it may be anything."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay_beliefs import make_policy
from benchmarks.replay_problem import MANY_TRAININGS, Goal, Problem
from benchmarks.replay_search import ReplayedSearch, steps
from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import RecordedRun, Recording
from tuner.search.policy import Action, Continue, Decision, Policy, Start
from tuner.search.state import SearchState

#: Decisions that are looked at, and after how many of them everything not yet paid for changes.
NUM_DECISIONS, PREFIXES = 31, (0, 1, 3, 6, 10, 20, 30)


def made_recording(seed: int = 0) -> Recording:
    """40 runs by a plain law with noise, of two strategies; the largest rates never arrive."""
    rng = np.random.default_rng(seed)
    axes = itertools.product((1, 2, 4, 8, 16), (16, 64), (0.01, 0.1), ("sync", "async"))
    runs = [
        made_run(Configuration(nodes=n, batch_size=b, learning_rate=r, strategy=s), rng)
        for n, b, r, s in axes
    ]
    return Recording(
        name="made",
        metric="accuracy",
        maximize=True,
        target=0.9,
        machines={"one": Machine(cores=2, dollars_per_hour=0.1)},
        batch_size_scope="rank",
        extra_nodes=1,
        startup_seconds=1.0,
        runs=tuple(runs),
    )


def made_run(what: Configuration, rng: np.random.Generator) -> RecordedRun:
    step_seconds = 0.02 + 0.002 * what.batch_size + 0.005 * math.log2(what.nodes)
    asynchronous = 1.5 if what.strategy == "async" else 1.0
    needed = asynchronous * 4_000 / what.batch_size / what.nodes**0.5 * (0.05 / what.learning_rate) ** 0.3
    steps = np.ceil(np.geomspace(0.05, 2.0, 15) * needed) + np.arange(15)
    top = 0.4 if what.learning_rate * what.nodes > 0.5 else 0.98
    values = top - (top - 0.1) * np.exp(-2.3 * steps / needed) + 0.01 * rng.standard_normal(15)
    seconds = steps * step_seconds * math.exp(0.05 * rng.standard_normal())
    return RecordedRun(
        configuration=what,
        step_seconds=float(seconds[-1] / steps[-1]),
        curve=np.stack([seconds, steps, values], axis=1),
        end="one pass" if values.max() < 0.9 else None,
    )


def paid_seconds(probes: Sequence[ProbeRecord]) -> dict[Configuration, float]:
    """How far each configuration's curve was paid for; those begun only."""
    found: dict[Configuration, float] = {}
    for probe in probes:
        for measurement in probe.slices:
            known = found.get(probe.configuration, 0.0)
            found[probe.configuration] = max(known, measurement.training_seconds)
    return found


def garbled(recording: Recording, paid: dict[Configuration, float], *, shuffled: bool) -> Recording:
    """The recording with anything at all where nothing was paid for."""
    rng = np.random.default_rng(7)
    runs = [_garbled_run(run, paid.get(run.configuration), rng) for run in recording.runs]
    order = rng.permutation(len(runs)) if shuffled else range(len(runs))
    return replace(recording, runs=tuple(runs[i] for i in order))


def _garbled_run(run: RecordedRun, paid: float | None, rng: np.random.Generator) -> RecordedRun:
    curve = run.curve.copy()
    beyond = curve[:, 0] > (-1.0 if paid is None else paid)
    curve[beyond, 2] = rng.uniform(-5.0, 5.0, int(beyond.sum()))
    if beyond.any():
        run = replace(run, end=str(rng.choice(["diverged", "time limit"])))
    if paid is None:  # its clock is unknown too
        scale = rng.uniform(0.1, 10.0)
        curve[:, 0] *= scale
        run = replace(run, step_seconds=run.step_seconds * scale)
    return replace(run, curve=curve)


def posed(recording: Recording, folder: Path, goal: Goal) -> Problem:
    """The recording as a file, under a deadline that does not follow from it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_recording(recording, folder / "made.jsonl.gz")
    deadline = 60.0 if goal == "dollars" else None
    path = folder / "made.jsonl.gz"
    return Problem(path=path, goal=goal, trainings=MANY_TRAININGS, deadline=deadline)


def known_of(action: Action) -> tuple[object, ...]:
    """What an action does; the words for people are left out."""
    if not isinstance(action, Start | Continue):
        return (type(action),)
    until = (action.until.samples, action.until.steps)
    what = action.configuration if isinstance(action, Start) else action.probe_id
    return type(action), what, action.purpose, until, pytest.approx(action.until.training_seconds or 0.0)


def decided(problem: Problem, policy: Policy) -> list[tuple[Action, list[ProbeRecord]]]:
    """The first decisions, each with the probes it was taken on."""
    search = ReplayedSearch(problem)
    decisions = itertools.islice(steps(search, policy), NUM_DECISIONS)
    return [(decision.action, list(state.probes)) for state, decision, _ in decisions]


def changed(
    recording: Recording, folder: Path, goal: Goal, make: Callable[[], Policy], *, shuffled: bool
) -> list[int]:
    """The decisions that are taken otherwise where everything not paid for before them is garbled."""
    decisions = decided(posed(recording, folder / "whole", goal), make())
    assert len(decisions) == NUM_DECISIONS
    found = []
    for prefix in PREFIXES:
        action, probes = decisions[prefix]
        other = garbled(recording, paid_seconds(probes), shuffled=shuffled)
        search = ReplayedSearch(posed(other, folder / f"after {prefix}", goal))
        for earlier, _ in decisions[:prefix]:
            search.execute(earlier)
        if known_of(make().decide(search.state()).action) != known_of(action):
            found.append(prefix)
    return found


@pytest.mark.parametrize("goal", ["seconds", "dollars"])
@pytest.mark.parametrize("shuffled", [False, True], ids=["in order", "shuffled"])
def test_no_decision_changes_with_what_was_not_paid_for(tmp_path, goal, shuffled):
    def make() -> Policy:
        return make_policy(3, "neutral")

    assert changed(made_recording(), tmp_path, goal, make, shuffled=shuffled) == []


class Peeking:
    """Trains what it sees to arrive first."""

    def decide(self, state: SearchState) -> Decision:
        """Looks the answers up in the recording."""
        recording = state.job.recording()
        assert recording is not None
        tried = {probe.configuration for probe in state.probes}
        left = [run for run in recording.runs if run.configuration not in tried]
        best = min(left, key=recording.truth_seconds).configuration
        until = Until(training_seconds=0.5)
        action = Start(configuration=best, purpose=Purpose.STATISTICS, until=until, reason="it arrives first")
        return Decision(action=action)


def test_a_policy_that_peeks_is_caught(tmp_path):
    assert changed(made_recording(), tmp_path, "seconds", Peeking, shuffled=False)


def test_what_was_not_paid_for_is_garbled_and_the_rest_is_not():
    recording = made_recording()
    run = recording.runs[0]
    paid = {run.configuration: float(run.curve[6, 0])}
    other = garbled(recording, paid, shuffled=True)
    same = other.run(run.configuration).curve
    assert (same[:7] == run.curve[:7]).all()
    assert (same[7:, 2] != run.curve[7:, 2]).all()
    unseen = recording.runs[1].configuration
    assert (other.run(unseen).curve[:, 2] != recording.runs[1].curve[:, 2]).all()
    assert other.configurations() != recording.configurations()
    assert set(other.configurations()) == set(recording.configurations())
