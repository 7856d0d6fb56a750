"""Compares what a search read from a script with the truth, and judges it.

A reading is matched with the score that the script printed by its value: a value that the script never
printed has a wrong unit (or is misread); a value that stands elsewhere than where the script printed it has
a wrong position; its training seconds are compared with those at the printed score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from benchmarks.own_scripts_jobs.pretended import Recipe, Score
from benchmarks.own_scripts_runs import ScriptJob, StoredSlice, Tuning, batch_and_rate
from tuner.domain.measurement import CurvePoint

#: What a clock and an overrun may be off: a part of it, and seconds for start-up that cannot be told apart.
_CLOCK_SHARE, _CLOCK_SECONDS = 0.05, 0.3
_BUDGET_SHARE = 0.05
_PLACE_SHARE = 0.01
#: A slice that ends so shortly before the end of the budget was ended by the budget.
_AT_THE_END_SECONDS = 0.5

BARS = ("budget", "slices", "answer", "unit", "first", "clock")


@dataclass(frozen=True, kw_only=True)
class Reading:
    """A score of the study beside the truth.

    Args:
        point: The score as it was read.
        printed: The same score as the script printed it; None if it never printed such a value.
        batch: Batch size.
        is_first: Whether it is the first score of its probe.
        first_samples: Where the script printed its first score.
    """

    point: CurvePoint
    printed: Score | None
    batch: int
    is_first: bool
    first_samples: int

    @property
    def has_right_place(self) -> bool:
        """Whether it stands where the script printed it: within a batch and 1% of the samples."""
        if self.printed is None:
            return False
        allowed = self.batch + _PLACE_SHARE * self.printed.samples
        is_near = abs(self.point.samples - self.printed.samples) <= allowed
        return is_near and (not self.is_first or self.printed.samples == self.first_samples)

    @property
    def clock_error(self) -> float | None:
        """Seconds beyond the truth; None if the value was never printed."""
        return None if self.printed is None else self.point.training_seconds - self.printed.seconds

    @property
    def has_right_clock(self) -> bool:
        """Whether its training seconds are those at the printed score, within 5% and 0.3 s."""
        error = self.clock_error
        if error is None or self.printed is None:
            return False
        return abs(error) <= _CLOCK_SHARE * self.printed.seconds + _CLOCK_SECONDS


def readings(script: ScriptJob, tuning: Tuning) -> list[Reading]:
    """Every score of a study beside the truth."""
    found: list[Reading] = []
    printed: dict[tuple[int, float], list[Score]] = {}
    for probe in dict.fromkeys(stored.probe for stored in tuning.slices):
        measurements = [stored.measurement for stored in tuning.slices if stored.probe == probe]
        batch, rate = pair = batch_and_rate(measurements[0].configuration)
        if pair not in printed:
            printed[pair] = list(script.recipe.scores(batch, rate, tuning.seed))
        points = sorted((p for m in measurements for p in m.curve), key=lambda point: point.samples)
        for number, point in enumerate(points):
            found.append(
                Reading(
                    point=point,
                    printed=matching(script.recipe, printed[pair], point),
                    batch=batch,
                    is_first=number == 0,
                    first_samples=printed[pair][0].samples,
                )
            )
    return found


def matching(recipe: Recipe, scores: Sequence[Score], point: CurvePoint) -> Score | None:
    """The printed score with the value of a reading, the nearest if there are several."""
    close = 0.6 * 10.0**-recipe.digits
    same = [score for score in scores if abs(score.value - point.value) <= close]
    return min(same, key=lambda score: abs(score.samples - point.samples), default=None)


def overrun_seconds(script: ScriptJob, tuning: Tuning) -> float:
    """Seconds that all slices used together beyond the budget; negative where some were left."""
    return sum(_elapsed(stored) for stored in tuning.slices) - script.budget_seconds


def silent_slices(script: ScriptJob, tuning: Tuning) -> list[StoredSlice]:
    """Slices that brought neither a score, nor a step time, nor progress.

    The first slice of the study and those that the budget ended do not count.
    """
    known: dict[int, int] = {}
    found = []
    ends = accumulate(_elapsed(stored) for stored in tuning.slices)
    for number, (stored, end) in enumerate(zip(tuning.slices, ends, strict=True)):
        measurement, before = stored.measurement, known.get(stored.probe, 0)
        has_reported = measurement.curve or measurement.ranks or measurement.samples > before
        known[stored.probe] = max(before, measurement.samples)
        if number > 0 and not has_reported and end < script.budget_seconds - _AT_THE_END_SECONDS:
            found.append(stored)
    return found


def judged(script: ScriptJob, tuning: Tuning) -> dict[str, Any]:
    """A row of the result: the bars, each passed or not, and the figures behind them."""
    read = readings(script, tuning)
    overrun, silent = overrun_seconds(script, tuning), silent_slices(script, tuning)
    firsts = [reading for reading in read if reading.is_first]
    matched = [reading for reading in read if reading.printed is not None]
    stated_seconds, stated_chance = _stated(tuning)
    bars = {
        "budget": overrun <= script.grace_seconds + _BUDGET_SHARE * script.budget_seconds,
        "slices": not silent,
        "answer": tuning.answer is None or bool(read),
        # Nothing that was read is not right, either.
        "unit": bool(read) and len(matched) == len(read),
        "first": bool(firsts) and all(reading.has_right_place for reading in firsts),
        "clock": bool(read) and all(reading.has_right_clock for reading in read),
    }
    return {
        "script": script.name,
        "seed": tuning.seed,
        "exit_code": tuning.exit_code,
        "wall_seconds": tuning.wall_seconds,
        "num_slices": len(tuning.slices),
        "num_scores": len(read),
        "overrun_seconds": overrun,
        "overrun_percent": 100 * overrun / script.budget_seconds,
        "silent_slices": len(silent),
        "has_answer": tuning.answer is not None,
        "wrong_units": len(read) - len(matched),
        "wrong_first": sum(not reading.has_right_place for reading in firsts),
        "wrong_places": sum(not reading.has_right_place for reading in read),
        "wrong_clocks": sum(not reading.has_right_clock for reading in read),
        "largest_clock_error": max(
            (r.clock_error for r in matched if r.clock_error is not None), key=abs, default=None
        ),
        "stated_seconds": stated_seconds,
        "stated_chance": stated_chance,
        "claims_arrival": _claims_arrival(tuning),
        "bars": bars,
    }


def advice(script: ScriptJob, tuning: Tuning) -> dict[str, Any]:
    """True training seconds of the answer, the present settings and the best of a grid.

    They come from the script's recipe; infinite where the target is never reached, None without an answer.
    """
    seed = tuning.seed
    best = script.best_of_grid(seed)
    answer = None if tuning.chosen is None else script.seconds_to_target(*tuning.chosen, seed)
    baseline = script.seconds_to_target(*script.baseline, seed)
    grid = script.seconds_to_target(*best, seed)
    return {
        "answer": tuning.chosen,
        "best_of_grid": best,
        "answer_seconds": answer,
        "baseline_seconds": baseline,
        "grid_seconds": grid,
        "answer_over_baseline": _ratio(answer, baseline),
        "answer_over_grid": _ratio(answer, grid),
    }


def passed(rows: Sequence[dict[str, Any]]) -> dict[str, bool]:
    """Whether every run of a script passed, by bar."""
    return {bar: all(row["bars"][bar] for row in rows) for bar in BARS}


def _ratio(answer: float | None, other: float) -> float | None:
    return None if answer is None or math.isinf(other) else answer / other


def _elapsed(stored: StoredSlice) -> float:
    return stored.measurement.charged_seconds - stored.measurement.shared_seconds


def _stated(tuning: Tuning) -> tuple[float | None, float | None]:
    """The median of the training seconds that the answer states, and the chance of reaching the target."""
    if tuning.answer is None:
        return None, None
    choice = tuning.answer["choice"]
    return (choice.get("seconds") or {}).get("median"), choice.get("probability_of_reaching")


def _claims_arrival(tuning: Tuning) -> bool:
    verified = None if tuning.answer is None else tuning.answer.get("verified")
    return bool(verified and verified["reached"])
