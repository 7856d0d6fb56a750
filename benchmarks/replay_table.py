"""The replay benchmark's figures for people."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_BASELINES = ("tpe", "tpe-sha", "gp", "random")

_HEAD = (
    f"{'sampler':10} {'to 20%: median':>14} {'p90':>6} {'never':>6}   {'to 5%: median':>13} {'p90':>6} "
    f"{'never':>6}   {'regret at 3x':>12} {'10x':>6} {'30x':>6}   {'stop: cost':>10} {'regret':>6} {'p90':>6}"
    f"   {'total/best':>10} {'/median':>7}   {'covered':>7} {'width':>6}   {'suggests in ms':>14} {'p90':>6}"
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All rows, by recording and goal, with the geometric means below."""
    lines: list[str] = []
    for recording, goal in dict.fromkeys((row["recording"], row["goal"]) for row in rows):
        lines += [f"{recording}, {goal}: costs in those of the best configuration, start-up apart", _HEAD]
        lines += [_line(row) for row in rows if (row["recording"], row["goal"]) == (recording, goal)]
        lines.append("")
    return "\n".join([*lines, *_summary(rows)])


def _line(row: dict[str, Any]) -> str:
    near, nearer, regret, stop = (
        row[key] for key in ("cost_to_20_percent", "cost_to_5_percent", "regret_at", "stop")
    )
    suggests = row["suggestion_seconds"]
    return (
        f"{row['sampler']:10} {_number(near['median']):>14} {_number(near['p90']):>6} "
        f"{_share(near['never']):>6}   {_number(nearer['median']):>13} {_number(nearer['p90']):>6} "
        f"{_share(nearer['never']):>6}   {_number(regret['3']):>12} {_number(regret['10']):>6} "
        f"{_number(regret['30']):>6}   {_number(stop['cost']):>10} {_number(stop['regret']):>6} "
        f"{_number(stop['p90_regret']):>6}   {_number(row['total_against_best']):>10} "
        f"{_number(row['total_against_median']):>7}   {_share(row['coverage_90']):>7} "
        f"{_number(row['interval_ratio']):>6}   {_number(suggests['median'], 1000):>14} "
        f"{_number(suggests['p90'], 1000):>6}{_variant(row)}"
    )


def _variant(row: dict[str, Any]) -> str:
    words = [] if row["sampler"] not in ("model", "static") else [f"prior {row['prior']}"]
    return f"   {', '.join(words)}" if words else ""


def _number(value: float | None, scale: float = 1.0) -> str:
    if value is None:
        return "-"
    return f"{value * scale:.0f}" if value * scale >= 1000 else f"{value * scale:.3g}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def geometric_means(rows: Sequence[dict[str, Any]], goal: str) -> dict[str, float]:
    """Over recordings, of the median cost to within 20%, by sampler; infinite where one has no median."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["goal"] == goal:
            median = row["cost_to_20_percent"]["median"]
            found.setdefault(row["sampler"], []).append(math.inf if median is None else median)
    return {
        sampler: math.exp(sum(math.log(max(cost, 1e-9)) for cost in costs) / len(costs))
        for sampler, costs in found.items()
    }


def _summary(rows: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for goal in dict.fromkeys(row["goal"] for row in rows):
        searched = [row for row in rows if row["sampler"] in ("model", *_BASELINES)]
        means = geometric_means(searched, goal)
        if not means:
            continue
        words = ", ".join(f"{name} {_mean(mean)}" for name, mean in means.items())
        lines.append(f"{goal}, geometric mean of the median cost to within 20%: {words}")
        others = {name: mean for name, mean in means.items() if name in _BASELINES}
        if "model" in means and others:
            best = min(others, key=lambda name: others[name])
            ratio = _mean(others[best] / means["model"]) if math.isfinite(means["model"]) else "-"
            lines.append(f"{goal}, best of Optuna's ({best}) over model: {ratio}")
    return lines


def _mean(value: float) -> str:
    return "over the limit" if math.isinf(value) else f"{value:.1f}"
