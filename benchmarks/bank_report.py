"""Figures of the bank: cost, coverage, stops and reliability by kind, and ratios between samplers."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from benchmarks.bank_kinds import KINDS
from benchmarks.bank_search import MODEL

Row = dict[str, Any]

#: The recommendation is good within this factor of the best.
NEAR = 1.2
#: Ends of the bins of a stated probability.
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
#: Costs below this count as this, so that one free answer does not decide a geometric mean.
LEAST_COST = 0.01
#: Stops that say that nothing reaches the target.
UNREACHABLE = "out_of_reach"
#: Stands for all kinds, or goals.
ALL = "all"


def cost_to(row: Row, factor: float) -> float:
    """Cost from which the recommendation is within a factor of the best and stays so; infinite for never."""
    found = math.inf
    for spent, regret in reversed(row["course"]):
        if regret is None or regret > factor:
            break
        found = float(spent)
    return found


def cost_of(row: Row) -> float:
    """The cost that a search is judged by, in the best configuration's cost; infinite for never.

    One training: all that was spent until the first run arrived. Many: the cost until the recommendation is
    within 20% of the best and stays so. Nothing reachable: what was spent when the search said so.
    """
    if not KINDS[row["kind"]].is_reachable:
        return float(row["spent"]) if row["stop"] == UNREACHABLE else math.inf
    if row["trainings"] != 1:
        return cost_to(row, NEAR)
    return math.inf if row["arrived"] is None else float(row["arrived"])


def counted_cost(row: Row) -> float:
    """`cost_of`, where never counts as the search's limit."""
    return max(min(cost_of(row), row["limit"]), LEAST_COST)


def series_name(row: Row) -> str:
    """A baseline's name; `model` with its label."""
    return f"{MODEL} {row['label']}" if row["sampler"] == MODEL else str(row["sampler"])


def summaries(rows: Sequence[Row]) -> list[Row]:
    """One row for each kind, goal, number of trainings and sampler, and those of all kinds and goals.

    The latter leave out the kinds in which nothing is reachable. Their medians are of each recording, kind
    and goal.
    """
    found = [_summary(group) for group in _grouped(rows, ("kind", "goal", "trainings", "sampler", "label"))]
    reachable = [row for row in rows if KINDS[row["kind"]].is_reachable]
    if len({(row["kind"], row["goal"]) for row in reachable}) > 1:
        for group in _grouped(reachable, ("trainings", "sampler", "label")):
            found.append({**_summary(group, ("recording", "kind", "goal")), "kind": ALL, "goal": ALL})
    return found


def _summary(rows: Sequence[Row], cell: Sequence[str] = ("recording",)) -> Row:
    """The figures of some searches of one sampler.

    Args:
        rows: The searches.
        cell: What tells problems from each other.
    """
    medians = {
        " ".join(names): float(np.median([counted_cost(row) for row in found]))
        for names, found in _by(rows, lambda row: tuple(row[key] for key in cell)).items()
    }
    worst = max(medians, key=lambda name: medians[name])
    first = rows[0]
    return {
        **{key: first[key] for key in ("kind", "goal", "trainings", "sampler", "label")},
        "searches": len(rows),
        "seeds": len({row["seed"] for row in rows}),
        "medians": medians,
        "geometric_mean": geometric_mean(medians.values()),
        "worst": medians[worst],
        "worst_recording": worst,
        "never": float(np.mean([math.isinf(cost_of(row)) for row in rows])),
        **coverage(rows),
        **bounds(rows),
        "says_unreachable": float(np.mean([row["stop"] == UNREACHABLE for row in rows])),
        "stops_with_an_answer": float(np.mean([row["stop"] in ("no_gain", "arrived") for row in rows])),
        "failed": sum(row["error"] is not None for row in rows),
        "wall_seconds": sum(row["wall_seconds"] for row in rows),
    }


def coverage(rows: Iterable[Row]) -> Row:
    """Coverage and width of 90% intervals, of predictions that were made after the first score.

    Both are computed for each recording first: the mean over recordings, and the geometric mean of the
    medians of upper over lower end. None where there is no prediction.
    """
    covered, widths, num = [], [], 0
    for found in _by(rows, lambda row: row["recording"]).values():
        predictions = [p for row in found for p in row["predictions"] if p["after_first_score"]]
        num += len(predictions)
        if predictions:
            covered.append(float(np.mean([p["covered"] for p in predictions])))
        ratios = [p["ratio"] for p in predictions if p["ratio"] is not None]
        if ratios:
            widths.append(float(np.median(ratios)))
    return {
        "coverage_90": float(np.mean(covered)) if covered else None,
        "width": geometric_mean(widths) if widths else None,
        "predictions": num,
    }


def bounds(rows: Iterable[Row]) -> Row:
    """How many stops stated a bound on the regret of their recommendation, and in what share it held.

    Counted are searches that stopped by themselves since no probe would pay back, with a recommendation.
    """
    stops = [row for row in rows if row["stop"] == "no_gain" and row["bound"] is not None]
    held = [row["regret"] is not None and row["regret"] <= row["bound"] for row in stops]
    return {"bounds": len(stops), "bounds_held": float(np.mean(held)) if held else None}


def reliability(rows: Iterable[Row]) -> list[Row]:
    """For each bin of the stated probability of reaching the target: how many, its mean, the share that did.

    Only predictions after the first score count, and only of configurations of which it is known whether they
    reach the target.
    """
    known = [
        (p["reaches"], p["reached"])
        for row in rows
        for p in row["predictions"]
        if p["after_first_score"] and p["reaches"] is not None and p["reached"] is not None
    ]
    table = []
    for low, high in pairwise(BINS):
        found = [(p, r) for p, r in known if low <= p < high or (high == BINS[-1] and p == high)]
        table.append(
            {
                "from": low,
                "to": high,
                "predictions": len(found),
                "stated": float(np.mean([p for p, _ in found])) if found else None,
                "reached": float(np.mean([r for _, r in found])) if found else None,
            }
        )
    return table


def comparisons(rows: Sequence[Row], ours: str, other: str) -> list[Row]:
    """Ratios of the cost of one series to another's, paired by seed, for each kind, goal and trainings.

    Args:
        rows: Results.
        ours: A `series_name`.
        other: Another; nothing is returned where neither searched the same.

    Returns:
        For each kind, goal and number of trainings the geometric mean over recordings of `ratios`, each of
        which is the geometric mean over seeds.
    """
    found: list[Row] = []
    for group in _grouped(rows, ("kind", "goal", "trainings")):
        ratios = {}
        for name, of_recording in _by(group, lambda row: row["recording"]).items():
            costs = [
                {row["seed"]: counted_cost(row) for row in of_recording if series_name(row) == series}
                for series in (ours, other)
            ]
            both = costs[0].keys() & costs[1].keys()
            if both:
                ratios[name] = geometric_mean(costs[0][seed] / costs[1][seed] for seed in both)
        if ratios:
            first = group[0]
            found.append(
                {
                    **{key: first[key] for key in ("kind", "goal", "trainings")},
                    "series": ours,
                    "against": other,
                    "geometric_mean": geometric_mean(ratios.values()),
                    "ratios": ratios,
                }
            )
    reachable = [c for c in found if KINDS[c["kind"]].is_reachable]
    if len({(c["kind"], c["goal"]) for c in reachable}) > 1:
        for group in _grouped(reachable, ("trainings",)):
            ratios = {f"{name} {c['kind']} {c['goal']}": r for c in group for name, r in c["ratios"].items()}
            mean = geometric_mean(ratios.values())
            found.append({**group[0], "kind": ALL, "goal": ALL, "geometric_mean": mean, "ratios": ratios})
    return found


def geometric_mean(values: Iterable[float]) -> float:
    """Of positive values."""
    return float(np.exp(np.mean(np.log(list(values)))))


def report(rows: Sequence[Row], ours: str, other: str) -> Row:
    """All figures, as `--json` prints them."""
    ordered = sorted(rows, key=lambda row: list(KINDS).index(row["kind"]))
    of_model = [row for row in ordered if series_name(row) == ours]
    return {
        "summaries": summaries(ordered),
        "reliability": [
            {"kind": group[0]["kind"], "bins": reliability(group)} for group in _grouped(of_model, ("kind",))
        ]
        + [{"kind": ALL, "bins": reliability(of_model)}],
        "comparisons": comparisons(ordered, ours, other),
        "failures": sorted({f"{series_name(r)}: {r['error']}" for r in rows if r["error"] is not None}),
    }


def tables(found: Row) -> str:
    """The figures of `report`, for people."""
    lines: list[str] = []
    for many in (True, False):
        chosen = [s for s in found["summaries"] if _is_reachable(s) and (s["trainings"] != 1) is many]
        if chosen:
            title = (
                "Many trainings: cost until within 20%"
                if many
                else "One training: total until the first arrival"
            )
            lines += [f"{title} (in the best configuration's cost; never counts as the limit)", _HEAD]
            lines += [*map(_line, chosen), ""]
    beyond = [s for s in found["summaries"] if not _is_reachable(s)]
    if beyond:
        lines += ["A target that nothing reaches: searches that say so, and their cost until then", _BEYOND]
        lines += [*map(_beyond_line, beyond), ""]
    lines += [
        "Probability of reaching the target after the first score: stated -> came true (predictions)",
        _BINS,
    ]
    lines += [*(_reliability_line(table) for table in found["reliability"]), ""]
    if found["comparisons"]:
        first = found["comparisons"][0]
        lines.append(f"Cost of {first['series']} over {first['against']}, paired by seed (below 1: less)")
        lines += [*map(_comparison_line, found["comparisons"]), ""]
    lines += [f"failed: {words}" for words in found["failures"]]
    return "\n".join(lines).rstrip()


_NAMES = f"{'kind':14} {'goal':8} {'sampler':20} {'searches':>8}"
_HEAD = (
    f"{_NAMES} {'geo. mean':>9} {'worst':>6} {'never':>6}  {'covered':>7} {'width':>6} "
    f"{'bound held':>11} {'gave up':>7} {'in s':>6}  worst recording"
)
_BEYOND = f"{_NAMES} {'trainings':>9} {'say so':>6} {'answer':>6} {'cost':>6} {'worst':>6}  worst recording"
_BINS = f"{'kind':14} " + " ".join(f"{f'{low:.0%}-{high:.0%}':>18}" for low, high in pairwise(BINS))


def _is_reachable(s: Row) -> bool:
    return s["kind"] == ALL or KINDS[s["kind"]].is_reachable


def _names(s: Row) -> str:
    name = f"{s['sampler']} {s['label']}".strip()
    return f"{s['kind']:14} {s['goal']:8} {name:20} {s['searches']:>8}"


def _line(s: Row) -> str:
    held = f"{_share(s['bounds_held'])} of {s['bounds']}" if s["bounds"] else "-"
    failed = f" ({s['failed']} failed)" if s["failed"] else ""
    return (
        f"{_names(s)} {_number(s['geometric_mean']):>9} {_number(s['worst']):>6} {_share(s['never']):>6}  "
        f"{_share(s['coverage_90']):>7} {_number(s['width']):>6} {held:>11} "
        f"{_share(s['says_unreachable']):>7} {s['wall_seconds']:>6.0f}  {s['worst_recording']}{failed}"
    )


def _beyond_line(s: Row) -> str:
    failed = f" ({s['failed']} failed)" if s["failed"] else ""
    return (
        f"{_names(s)} {'one' if s['trainings'] == 1 else 'many':>9} {_share(s['says_unreachable']):>6} "
        f"{_share(s['stops_with_an_answer']):>6} {_number(s['geometric_mean']):>6} {_number(s['worst']):>6}  "
        f"{s['worst_recording']}{failed}"
    )


def _reliability_line(table: Row) -> str:
    words = [
        f"{_share(b['stated'])} -> {_share(b['reached'])} ({b['predictions']})" if b["predictions"] else "-"
        for b in table["bins"]
    ]
    return f"{table['kind']:14} " + " ".join(f"{word:>18}" for word in words)


def _comparison_line(c: Row) -> str:
    if c["kind"] == ALL:
        worst = max(c["ratios"], key=lambda name: c["ratios"][name])
        each = f"of {len(c['ratios'])} problems; worst: {worst} {_number(c['ratios'][worst])}"
    else:
        each = ", ".join(f"{name} {_number(ratio)}" for name, ratio in c["ratios"].items())
    trainings = "one" if c["trainings"] == 1 else "many"
    return f"{c['kind']:14} {c['goal']:8} {trainings:5} {_number(c['geometric_mean']):>6}  {each}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _by(rows: Iterable[Row], key: Callable[[Row], Any]) -> dict[Any, list[Row]]:
    found: dict[Any, list[Row]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row)
    return found


def _grouped(rows: Iterable[Row], keys: Sequence[str]) -> list[list[Row]]:
    return list(_by(rows, lambda row: tuple(row[key] for key in keys)).values())
