"""The confirmation in words."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import pytest

from search_spaces import Configuration
from tuner.advice.confirmation import compare_trainings, settings_of
from tuner.domain.confirmation import Confirmation, ConfirmedTraining
from tuner.report.confirmation import confirmation_finding, confirmation_table
from tuner.report.pages import report_html, report_markdown
from tuner.report.terminal import recommendation_text

FAST = Configuration(nodes=2, batch_size=64, learning_rate=0.1, strategy="all_reduce")
SLOW = FAST.replaced(nodes=1)


def confirmation(
    ours: list[float], theirs: list[float], *, missed: str = "", price_ratio: float | None = None
) -> Confirmation:
    """Trainings of so many seconds; the last one of each group that `missed` names missed the target."""
    groups = []
    for name, configuration, seconds in (("ours", FAST, ours), ("theirs", SLOW, theirs)):
        reached = [not (name in missed and k == len(seconds) - 1) for k in range(len(seconds))]
        trainings = [
            ConfirmedTraining(
                seed=1000 * (k + 1),
                reached=reached[k],
                outcome="reached" if reached[k] else "diverged",
                training_seconds=time,
            )
            for k, time in enumerate(seconds)
        ]
        groups.append(settings_of(configuration, trainings))
    return compare_trainings(
        groups[0],
        groups[1],
        price_ratio=price_ratio,
        uses_seed=True,
        num_unfinished=0,
        seconds=100.0,
        dollars=0.0,
    )


@pytest.mark.parametrize(
    ("found", "headline", "words"),
    [
        (
            confirmation([9, 10, 11], [20, 22, 19]),
            "2x sooner (1.7x to 2.4x)",
            "2x as long as the recommendation",
        ),
        (confirmation([20, 22, 19], [9, 10, 11]), "2x later (1.7x to 2.4x)", "0.49x as long"),
        (confirmation([9, 14], [10, 13]), "no difference shown", "which includes 1."),
        (
            confirmation([10], [15]),
            "1.5x sooner, one training each",
            "has no spread, so there is no interval",
        ),
        (confirmation([10, 10], [20, 80], missed="theirs"), "at least 4x sooner", "at least 4x as long"),
        (confirmation([10, 10], [20, 1], missed="theirs"), "no difference shown", "at least 0.45x as long"),
        (confirmation([10, 40], [20, 20], missed="ours"), "not confirmed", "at most 1x as long"),
        (confirmation([10, 40], [20, 20], missed="ours theirs"), "not confirmed", "no ratio and no bound"),
        (confirmation([10], []), "not finished", "in 0 of 0 trainings"),
    ],
)
def test_the_headline_says_no_more_than_the_trainings_do(
    found: Confirmation, headline: str, words: str
) -> None:
    finding = confirmation_finding(found)
    assert finding.headline == headline
    assert words in finding.detail
    assert "took 1m 40s" in finding.detail


def test_counts_medians_prices_and_what_is_missing_are_stated() -> None:
    found = confirmation([9, 10, 11], [20, 22, 19], price_ratio=0.5)
    words = confirmation_finding(found).detail
    assert "The recommendation reached the target in 3 of 3 trainings (median 10 s)" in words
    assert "the present settings reached the target in 3 of 3 trainings (median 20 s)" in words
    assert "The present settings cost 1x as much (90% interval 0.87x to 1.2x)." in words
    odd = replace(found, uses_seed=False, num_unfinished=2, dollars=1.5)
    assert "Trainings not finished: 2. The command takes no seed" in confirmation_finding(odd).detail
    assert "and cost $1.50." in confirmation_finding(odd).detail


def test_the_headline_compares_prices_where_the_goal_is_the_cheapest() -> None:
    # The recommendation needs twice the time, at a quarter of the price per second.
    later = confirmation([20, 22, 19], [9, 10, 11], price_ratio=4.0)
    assert confirmation_finding(later).headline.startswith("2x later")
    finding = confirmation_finding(later, by_price=True)
    assert finding.headline.startswith("2x cheaper (")
    assert "0.49x as long" in finding.detail
    missed = confirmation([10, 10], [20, 80], missed="theirs", price_ratio=0.5)
    assert confirmation_finding(missed, by_price=True).headline == "at least 2x cheaper"
    # Without prices, the times are compared.
    assert confirmation_finding(confirmation([10], [15]), by_price=True).headline.startswith("1.5x sooner")


def test_the_table_shows_each_seed_and_what_missed_the_target() -> None:
    table = confirmation_table(confirmation([10, 11], [20, 22, 80], missed="theirs"))
    assert table.rows == (
        ("1000", "10 s", "20 s"),
        ("2000", "11 s", "22 s"),
        ("3000", "–", "not reached in 1m 20s (diverged)"),
        ("median", "10.5 s", "22 s"),
    )


def test_every_rendering_shows_it(builder: ModuleType) -> None:
    found = confirmation([9, 10, 11], [20, 22, 19])
    content = builder.content(answer=replace(builder.recommendation(), confirmation=found))
    assert "with new seeds    2x sooner (1.7x to 2.4x)." in recommendation_text(content.recommendation)
    for text in (report_html(content), report_markdown(content)):
        assert "2x sooner" in text
        assert "3000" in text
