"""Targets and goals that a draft proposes."""

from __future__ import annotations

import random
import tomllib

import pytest

from tuner.drafting.command_line import split_command
from tuner.drafting.draft import Draft
from tuner.drafting.job_text import JobDraft, goal_of
from tuner.drafting.metric_names import Direction, Meaning
from tuner.drafting.readings import Reading
from tuner.drafting.source_code import SourceCode


def reading(
    *values: float, metric: str = "accuracy", direction: Direction = "maximize", percent: bool = False
) -> Reading:
    return Reading(
        source="output",
        meaning=Meaning(metric=metric, direction=direction, split="validation"),
        label="x",
        values=values,
        patterns=(r"epoch (?P<epoch>\d+) x (?P<value>\S+)",),
        fields=frozenset({"epoch"}),
        has_percent_sign=percent,
    )


@pytest.mark.parametrize(
    ("seen", "target"),
    [
        (reading(0.1, 0.5, 0.934), 0.91),
        (reading(10.0, 50.0, 93.4), 0.91),
        (reading(0.5, 0.93, percent=True), 0.00921),
        (reading(4.0, 1.0, 0.5, metric="loss", direction="minimize"), 0.58),
        (reading(30.0, 12.25, metric="perplexity", direction="minimize"), 12.7),
    ],
)
def test_a_target_is_a_little_easier_than_the_best_score(seen: Reading, target: float) -> None:
    assert goal_of(seen).target == pytest.approx(target)


@pytest.mark.parametrize(
    ("seen", "passed"),
    [
        (reading(0.0), 0.0),
        (reading(0.7, 0.6), 0.7),
        (reading(2.0, metric="loss", direction="minimize"), 2.0),
        (reading(-5.0, metric="return"), -5.0),
    ],
)
def test_without_an_improvement_the_target_is_not_met_at_once(seen: Reading, passed: float) -> None:
    goal = goal_of(seen)
    assert goal.target > passed if seen.meaning.direction == "maximize" else goal.target < passed


def test_scores_that_jump_have_to_pass_in_a_row() -> None:
    draw = random.Random(1)
    values = [20.0 + i + draw.uniform(-60, 60) for i in range(100)]
    goal = goal_of(reading(*values, metric="return"))
    assert goal.num_in_a_row == 3
    assert goal.target < sorted(values)[-3]
    assert goal_of(reading(*[0.01 * i for i in range(60)])).num_in_a_row == 1


def test_what_a_script_prints_cannot_break_the_file() -> None:
    odd = 'a "b" \\ \x08 \x7f ]]] = """ \u2028'
    seen = Reading(
        source="output",
        meaning=Meaning(metric="f1", direction="maximize"),
        label=odd,
        values=(0.1, 0.2),
        patterns=(f"epoch (?P<epoch>.)'''{odd}(?P<value>.)",),
        fields=frozenset({"epoch"}),
        examples=(odd,),
    )
    draft = Draft(line=split_command("python 'a b.py' '--x={1}' \"c'd\""), source=SourceCode())
    text = JobDraft(command="x", draft=draft, reading=seen, trial=None).text()
    job = tomllib.loads(text)
    assert job["workload"]["command"] == "python 'a b.py' '--x={{1}}' 'c'\"'\"'d'"
    assert job["goal"]["direction"] == "maximize"


def test_a_draft_shows_where_nodes_and_their_price_belong() -> None:
    """The lines are comments: without them, the job has one node without a price."""
    shown = {"nodes": "nodes = [", "price": "dollars_per_node_hour = "}
    for command, keys in (
        ("python a.py", {"price"}),
        ("torchrun --nproc-per-node 1 a.py", {"nodes", "price"}),
    ):
        draft = Draft(line=split_command(command), source=SourceCode())
        text = JobDraft(command=command, draft=draft, reading=None, trial=None).text()
        assert {key for key, line in shown.items() if f"\n# {line}" in text} == keys
        assert "cluster" not in tomllib.loads(text)
        uncommented = text.replace("# [cluster]", "[cluster]").replace("# dollars_per", "dollars_per")
        assert tomllib.loads(uncommented)["cluster"] == {"dollars_per_node_hour": 3.0}
    ranks = Draft(line=split_command("torchrun --nproc-per-node 2 a.py"), source=SourceCode())
    text = JobDraft(command="x", draft=ranks, reading=None, trial=None).text()
    assert tomllib.loads(text)["cluster"] == {"nodes": [1], "devices_per_node": 2}
    assert "\n# dollars_per_node_hour" in text
