"""Searches of the bank: which there are, how one is carried out, and the file that stores their results."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.bank_kinds import KINDS, derived
from benchmarks.peers import PEERS, peer
from benchmarks.replay_beliefs import make_policy
from benchmarks.replay_measures import interval_ratio, is_covered
from benchmarks.replay_optuna import BASELINES, OptunaReplay
from benchmarks.replay_problem import MANY_TRAININGS, Goal, Problem, problem
from benchmarks.replay_search import replay
from benchmarks.replay_trace import Moment, Prediction, Trace
from tuner.domain.errors import JobError
from tuner.recordings.file import load_recording, write_recording
from tuner.search.policy import Decision, Policy, Stop, StopKind
from tuner.search.state import SearchState

MODEL = "model"
#: Where a search ends that has not ended by itself, in the best configuration's cost.
MODEL_LIMIT, OTHER_LIMIT = 60.0, 100.0
#: A search of the model also ends after so many decisions, each of which takes some 50 ms.
MOST_DECISIONS = 1000
#: The answer serves many trainings, or one.
TRAININGS = (MANY_TRAININGS, 1)
#: What a row is found by again.
KEY = ("digest", "kind", "goal", "trainings", "sampler", "seed", "label")
_ROOT = Path(__file__).resolve().parents[1]
#: Folders whose code decides what the model does.
_POLICY_FOLDERS = ("search_spaces", "tuner")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A derived recording with a goal: what several samplers search with several seeds.

    Args:
        recording: Name of the recording that it was derived from.
        kind: Name of its kind.
        path: File of the derived recording.
        digest: Of that file's content.
        goal: What is minimized.
        deadline: Longest training time that counts, seconds; None for any.
        unit: Cost that searches are measured in; None for the best configuration's.
    """

    recording: str
    kind: str
    path: Path
    digest: str
    goal: Goal
    deadline: float | None
    unit: float | None

    def problem(self, trainings: int) -> Problem:
        """What is searched where the answer serves so many trainings."""
        return Problem(
            path=self.path,
            goal=self.goal,
            trainings=trainings,
            deadline=self.deadline,
            can_resume=KINDS[self.kind].can_resume,
            unit=self.unit,
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search.

    Args:
        cell: What is searched.
        trainings: How many trainings the answer serves.
        sampler: `model` or a baseline.
        seed: Of the search.
        label: Version of the model; empty for a baseline.
    """

    cell: Cell
    trainings: int
    sampler: str
    seed: int
    label: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What its row is found by again."""
        found = {**asdict(self), **asdict(self.cell)}
        return tuple(found[name] for name in KEY)


def cells_of(path: Path, kinds: Sequence[str], goals: Sequence[Goal], folder: Path) -> Iterator[Cell]:
    """The problems of a recording, each derived recording written to a folder.

    A target that nothing reaches is measured in the cost of the best configuration at the recording's own
    target, and has the deadline of that.

    Args:
        path: The recording.
        kinds: Names of `KINDS`; those that do not apply are left out.
        goals: What is minimized; dollars only where the recording states prices.
        folder: For the derived recordings.

    Raises:
        JobError: The file cannot be read, or nothing in it reaches its target.
    """
    original = load_recording(path)
    for name in kinds:
        kind = KINDS[name]
        found = derived(kind, original)
        if found is None:
            continue
        target = folder / f"{path.name.removesuffix('.jsonl.gz')}.{name}.jsonl.gz"
        write_recording(found, target)
        for goal in goals:
            if goal == "dollars" and not original.machines:
                continue
            posed = problem(target if kind.is_reachable else path, goal)
            yield Cell(
                recording=original.name,
                kind=name,
                path=target,
                digest=load_recording(target).digest,
                goal=goal,
                deadline=posed.deadline,
                unit=None if kind.is_reachable else posed.best,
            )


def searches_of(
    cells: Iterable[Cell], samplers: Sequence[str], seeds: int, trainings: Sequence[int], label: str
) -> list[Search]:
    """All searches, the first seed of every cell first.

    Baselines never say that a target is out of reach, so they do not search where nothing reaches it.
    """
    return [
        Search(
            cell=cell,
            trainings=many,
            sampler=sampler,
            seed=seed,
            label=label if sampler == MODEL else "",
        )
        for seed in range(seeds)
        for cell in cells
        for many in trainings
        for sampler in samplers
        if sampler == MODEL or KINDS[cell.kind].is_reachable
    ]


def execute(search: Search) -> dict[str, Any]:
    """Carries a search out; an exception is a result, too, so that the other searches go on."""
    started = time.perf_counter()
    row: dict[str, Any] = {
        **dict(zip(KEY, search.key, strict=True)),
        "recording": search.cell.recording,
        "limit": limit_of(search.sampler),
    }
    try:
        posed = _problem(search.cell, search.trainings)
        row.update(row_of(posed, _trace(posed, search)))
    except Exception as error:
        row.update(row_of_failure(f"{type(error).__name__}: {error}"))
    return {**row, "wall_seconds": round(time.perf_counter() - started, 3)}


def limit_of(sampler: str) -> float:
    """What a search may spend, in the best configuration's cost."""
    return MODEL_LIMIT if sampler == MODEL else OTHER_LIMIT


@lru_cache(maxsize=16)
def _problem(cell: Cell, trainings: int) -> Problem:
    return cell.problem(trainings)


def _trace(posed: Problem, search: Search) -> Trace:
    if search.sampler == MODEL:
        policy = LimitedPolicy(make_policy(search.seed, "neutral"), MOST_DECISIONS)
        return replay(posed, policy, limit=MODEL_LIMIT, seed=search.seed)
    if search.sampler in BASELINES:
        return OptunaReplay(posed, search.sampler, search.seed).run(OTHER_LIMIT)
    if search.sampler in PEERS:
        return peer(posed, search.sampler, search.seed).run(OTHER_LIMIT)
    raise ValueError(f"no sampler is named {search.sampler!r}")


class LimitedPolicy:
    """A policy that stops after so many decisions, with what it believed at the last one.

    Args:
        policy: Decides until then.
        most: Decisions.
    """

    def __init__(self, policy: Policy, most: int) -> None:
        self._policy, self._left = policy, most

    def decide(self, state: SearchState) -> Decision:
        """See `Policy`."""
        decision = self._policy.decide(state)
        self._left -= 1
        if self._left > 0 or isinstance(decision.action, Stop):
            return decision
        return replace(decision, action=Stop(kind=StopKind.BUDGET, reason="no more decisions are allowed"))


def row_of(posed: Problem, trace: Trace) -> dict[str, Any]:
    """What one search came to; costs are in the best configuration's, and None stands for infinity.

    Args:
        posed: What was searched.
        trace: The search.
    """
    seconds = [m.suggestion_seconds for m in trace.moments if m.suggestion_seconds is not None]
    return {
        "course": _course(posed, trace.moments),
        "spent": trace.end.spent / posed.best,
        "regret": _finite(posed.regret(trace.end.recommended)),
        "bound": None if trace.end.regret_bound is None else _finite(trace.end.regret_bound),
        "stop": trace.stop,
        "arrived": None if trace.arrived_at is None else trace.arrived_at / posed.best,
        "predictions": [_prediction(posed, prediction) for prediction in trace.predictions],
        "decisions": len(seconds),
        "decision_seconds": round(sum(seconds), 3),
        "error": None,
    }


def row_of_failure(error: str) -> dict[str, Any]:
    """The same of a search that broke down, which found nothing."""
    return {
        "course": [[0.0, None]],
        **dict.fromkeys(("spent", "regret", "bound", "stop", "arrived")),
        "predictions": [],
        "decisions": 0,
        "decision_seconds": 0.0,
        "error": error,
    }


def _course(posed: Problem, moments: Sequence[Moment]) -> list[list[float | None]]:
    """What was spent when the regret of the recommendation changed, and the regret from then on."""
    course: list[list[float | None]] = []
    for moment in moments:
        regret = _finite(posed.regret(moment.recommended))
        if not course or course[-1][1] != regret:
            course.append([moment.spent / posed.best, regret])
    return course


def _prediction(posed: Problem, prediction: Prediction) -> dict[str, Any]:
    return {
        "spent": prediction.spent / posed.best,
        "after_first_score": prediction.after_first_score,
        "covered": bool(is_covered(posed, prediction)),
        "ratio": interval_ratio(posed, prediction),
        "reaches": prediction.reaches,
        "reached": reached(posed, prediction),
    }


def reached(posed: Problem, prediction: Prediction) -> bool | None:
    """Whether a configuration reaches the target; None where its recording stops before that is known.

    It is known of a run that arrives in the recording, and of one whose recording states why it ended.
    """
    if math.isfinite(posed.seconds[prediction.configuration]):
        return True
    return False if posed.recording.run(prediction.configuration).end is not None else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def code_label() -> str:
    """Names the code that decides, so that results of another version are not taken for its own."""
    digest = hashlib.sha256()
    for folder in _POLICY_FOLDERS:
        for path in sorted((_ROOT / folder).rglob("*.py")):
            digest.update(path.relative_to(_ROOT).as_posix().encode() + path.read_bytes())
    return f"code-{digest.hexdigest()[:8]}"


class Results:
    """A file of rows as JSON lines, one for each finished search, to which new ones are appended.

    Args:
        path: The file; made with its folder when the first row is added.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if path.exists():
            self._read()

    def add(self, row: dict[str, Any]) -> None:
        """Stores a row, which replaces an earlier one of the same search."""
        self.rows[_key(row)] = row
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")

    def _read(self) -> None:
        lines = self._path.read_text(encoding="utf-8").splitlines(keepends=True)
        for number, line in enumerate(lines, 1):
            try:
                row = json.loads(line)
                self.rows[_key(row)] = row
            except (ValueError, KeyError, TypeError) as error:
                if number < len(lines):
                    raise JobError(
                        f"{self._path}, line {number}: is no result: {error}; remove it"
                    ) from error
                # A run that was ended while it wrote leaves half of a line, and that search is run again.
                with self._path.open("w", encoding="utf-8") as file:
                    file.writelines(lines[:-1])


def _key(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in KEY)
