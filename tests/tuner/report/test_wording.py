from __future__ import annotations

import math
from dataclasses import replace
from types import ModuleType

import pytest

from tuner.advice.interval_check import estimate_of, interval_check, is_inside
from tuner.domain.format import format_dollar_interval, format_dollars, format_interval, format_seconds
from tuner.domain.ledger import PredictedAgainstMeasured
from tuner.domain.recommendation import Estimate, IntervalCheck
from tuner.report.present_settings import comparison
from tuner.report.terminal import recommendation_text
from tuner.report.wording import (
    coverage,
    measured,
    own_command_end,
    prediction,
    price,
    trust_in,
)


def test_a_verified_recommendation_is_held_against_its_prediction(builder: ModuleType) -> None:
    found = measured(builder.recommendation())
    assert found.headline == "9.31 s"
    assert "Inside the 90% interval 7.57 s to 12.8 s" in found.detail
    assert "20% of the run known" in found.detail


def test_a_verification_outside_its_interval_says_outside(builder: ModuleType) -> None:
    answer = builder.recommendation()
    late = replace(answer, verified=replace(answer.verified, training_seconds=20.0))
    assert "Outside the 90% interval" in measured(late).detail


def test_the_runner_up_has_its_intervals(builder: ModuleType) -> None:
    second = builder.recommendation().runner_up
    assert second.measured_seconds is None
    seconds, dollars = second.seconds, second.dollars
    time = f"{format_seconds(seconds.median)} ({format_interval(seconds)}) predicted"
    cost = f"{format_dollars(dollars.median)} ({format_dollar_interval(dollars)})"
    words = " ".join(recommendation_text(builder.recommendation()).split())
    assert f"{time}, {cost}" in words


def test_training_that_did_not_arrive_is_not_called_verified(builder: ModuleType) -> None:
    answer = builder.recommendation()
    failed = replace(answer, verified=replace(answer.verified, reached=False, value=0.91))
    assert trust_in(failed).headline == "not confirmed"
    assert measured(failed).headline == "target not reached"
    assert "0.91" in measured(failed).detail


def test_trust_distinguishes_provisional_measured_and_predicted(builder: ModuleType) -> None:
    unverified = replace(builder.recommendation(), verified=None)
    assert trust_in(unverified).headline == "measured"
    bare = replace(unverified, choice=builder.alternative(4, 256, 0.1))
    assert trust_in(bare).headline == "not verified"
    assert trust_in(replace(bare, provisional=True)).headline == "provisional"
    assert "No run of this configuration was measured" in measured(bare).detail


def test_an_unbounded_prediction_says_so(builder: ModuleType) -> None:
    answer = builder.recommendation()
    seconds = Estimate(lower=7.0, median=9.0, upper=math.inf)
    found = prediction(replace(answer, choice=replace(answer.choice, seconds=seconds)))
    assert found.headline == "about 9 s"
    assert "7 s to no upper bound" in found.detail


def test_a_factor_is_stated_only_between_two_measured_times(builder: ModuleType) -> None:
    answer = builder.recommendation()
    found = comparison(replace(answer, baseline=replace(answer.baseline, measured_seconds=91.0)))
    assert found.headline == "9.8x sooner, measured once"
    assert "took 1m 31s, measured" in found.detail


def test_present_settings_that_were_not_trained_to_the_target_are_an_interval(builder: ModuleType) -> None:
    found = comparison(builder.recommendation())
    assert found.headline == "sooner by prediction"
    assert "9.31 s (measured), against 1m 05s to 2m 07s (predicted) of the present settings" in found.detail
    assert "predicted from 30,000 samples (56 s) of their own run" in found.detail
    assert "overlap" not in found.detail
    assert "x sooner" not in found.headline + found.detail


def test_emulated_times_are_not_called_measured(builder: ModuleType) -> None:
    answer = builder.recommendation()
    found = comparison(replace(answer, choice=replace(answer.choice, emulated=True)))
    assert found.detail.startswith("9.31 s (emulated), against 1m 05s to 2m 07s (predicted)")


def test_present_settings_never_measured_say_so(builder: ModuleType) -> None:
    answer = builder.recommendation()
    guess = replace(answer, baseline=replace(answer.baseline, samples_observed=0))
    assert "(not measured)" in comparison(guess).detail
    assert "have not been measured" in comparison(guess).detail


def test_overlapping_intervals_are_no_gain(builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), verified=None, choice=builder.alternative(4, 256, 0.1))
    near = replace(answer.baseline, seconds=Estimate(lower=8.0, median=14.0, upper=25.0))
    found = comparison(replace(answer, baseline=near))
    assert found.headline == "not known which is sooner"
    assert found.detail.startswith("7.29 s to 12.3 s (not measured), against 8 s to 25 s (predicted)")
    assert "The intervals overlap." in found.detail


def test_a_goal_of_the_lowest_price_compares_prices(builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), goal="accuracy >= 0.95, cheapest")
    rate = answer.baseline.dollars_per_second
    assert rate == pytest.approx(answer.baseline.dollars.median / answer.baseline.seconds.median)
    found = comparison(answer)
    paid = 9.31 * answer.choice.dollars_per_second
    spent = format_dollar_interval(answer.baseline.dollars)
    assert found.detail.startswith(f"{format_dollars(paid)} (measured), against {spent} (predicted)")
    assert "Predicted time 9.48 s against " in found.detail
    measured_once = replace(answer, baseline=replace(answer.baseline, measured_seconds=2 * paid / rate))
    assert comparison(measured_once).headline == "2x cheaper, measured once"
    late = replace(answer, baseline=replace(answer.baseline, measured_seconds=paid / rate / 2))
    assert comparison(late).headline == "2x more expensive, measured once"
    # Without prices, the time is compared.
    free = replace(answer, choice=replace(answer.choice, dollars=None))
    assert comparison(free).headline == "sooner by prediction"


def test_a_long_start_of_the_script_has_its_price(builder: ModuleType) -> None:
    answer = builder.recommendation()
    assert "Starting" not in price(answer).detail
    slow = replace(answer, startup_seconds=2 * answer.choice.seconds.median)
    assert f"costs {format_dollars(2 * answer.choice.dollars.median)} more" in price(slow).detail
    assert "Starting the script costs" in recommendation_text(slow)
    assert price(replace(slow, choice=replace(slow.choice, dollars=None))) is None


def test_axes_without_effect_gain_nothing(builder: ModuleType) -> None:
    answer = builder.recommendation()
    baseline = replace(answer.baseline, measured_seconds=91.0)
    axes = ("nodes", "batch_size", "learning_rate")
    found = comparison(replace(answer, baseline=baseline, axes_without_effect=axes))
    assert found.headline == "no difference"
    assert (
        comparison(replace(answer, baseline=baseline, axes_without_effect=axes[1:])).headline
        != found.headline
    )


def test_more_budget_is_asked_for_only_where_the_budget_ended_the_search(builder: ModuleType) -> None:
    bare = replace(builder.recommendation(), verified=None, provisional=True)
    assert "larger [budget]" not in trust_in(bare).detail
    assert "larger [budget]" in trust_in(replace(bare, ended_by_budget=True)).detail


def test_a_wide_interval_or_a_run_that_was_not_started_is_a_guess(builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), verified=None)
    choice = replace(answer.choice, measured_seconds=None)
    assert prediction(replace(answer, choice=choice)).headline == "9.48 s (7.29 s to 12.3 s)"
    wide = replace(choice, seconds=Estimate(lower=1.0, median=9.0, upper=31.0))
    assert prediction(replace(answer, choice=wide)).headline == "a guess: 9 s (1 s to 31 s)"
    unknown = prediction(replace(answer, choice=replace(choice, samples_observed=0)))
    assert unknown.headline == "a guess: 9.48 s (7.29 s to 12.3 s)"
    assert "No run of this configuration was measured" in unknown.detail


def test_best_and_last_value_are_both_shown_where_they_differ(builder: ModuleType) -> None:
    answer = builder.recommendation()
    worse = replace(answer, verified=replace(answer.verified, last_value=0.93))
    assert "Best value 0.9512, last value 0.93." in measured(worse).detail
    assert "last value" not in measured(answer).detail


def test_a_recommendation_slower_than_the_present_settings_says_later(builder: ModuleType) -> None:
    answer = builder.recommendation()
    faster = replace(answer.baseline, measured_seconds=4.0)
    assert comparison(replace(answer, baseline=faster)).headline == "2.3x later, measured once"


def test_present_settings_absent_equal_or_unreachable_have_their_words(builder: ModuleType) -> None:
    answer = builder.recommendation()
    assert comparison(replace(answer, baseline=None)).headline == "no baseline"
    same = replace(answer.baseline, configuration=answer.choice.configuration)
    same_settings = comparison(replace(answer, baseline=same))
    assert same_settings.headline == "keep them"
    assert "runner-up" not in same_settings.detail
    sooner = replace(answer.runner_up, seconds=answer.choice.seconds.times(0.5), measured_seconds=None)
    same_settings = comparison(replace(answer, baseline=same, runner_up=sooner))
    assert (
        "The runner-up is predicted to be sooner, but no run of it reached the target."
        in same_settings.detail
    )
    trained = replace(sooner, measured_seconds=1.0)
    assert "runner-up" not in comparison(replace(answer, baseline=same, runner_up=trained)).detail
    endless = Estimate(lower=50.0, median=math.inf, upper=math.inf)
    lost = replace(answer.baseline, seconds=endless, probability_of_reaching=0.12)
    found = comparison(replace(answer, baseline=lost))
    assert found.headline == "they may never reach it"
    assert "12%" in found.detail
    # The interval is that of the few predictions that reach the target.
    unlikely = replace(
        answer.baseline, seconds=answer.choice.seconds, measured_seconds=None, probability_of_reaching=0.1
    )
    assert comparison(replace(answer, baseline=unlikely)).headline == "they may never reach it"


def test_coverage_counts_early_predictions_apart(builder: ModuleType) -> None:
    words = coverage(builder.checked())
    assert words.startswith("6 of 7 inside their 90% interval")
    assert "4 of 5 of those made with at most 25% of the run known" in words


def test_coverage_of_nothing_and_of_late_predictions_claims_nothing(builder: ModuleType) -> None:
    assert "unchecked" in coverage([])
    late = [check for check in builder.checked() if check.share_observed > 0.25]
    assert "says little" in coverage(late)


def test_quantiles_without_the_ends_of_the_interval_are_not_judged(builder: ModuleType) -> None:
    check = builder.checked()[0]
    bare = replace(check, prediction=replace(check.prediction, quantiles={0.5: 10.0}))
    assert estimate_of({0.5: 10.0}) is None
    assert is_inside(bare) is None
    assert "unchecked" in coverage([bare])


def test_what_the_own_command_needs_to_reach_the_target_is_stated(builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), user_command="python train.py", training_samples=15_361)
    steps = -(-15_361 // answer.choice.configuration.batch_size)
    assert f"within 15,361 samples = {steps:,} steps. Set" in own_command_end(answer)
    assert f"{steps:,} steps = 0.85 epochs" in own_command_end(replace(answer, training_epochs=0.8534))
    assert f"{steps:,} steps = 13 epochs" in own_command_end(replace(answer, training_epochs=12.3))
    doubtful = replace(answer, choice=replace(answer.choice, probability_of_reaching=0.6))
    assert "If it reaches the target (chance 60%), it does so within 15,361" in own_command_end(doubtful)
    nodes = replace(answer, user_command='torchrun --node-rank "$PACELINE_NODE_RANK" train.py')
    assert own_command_end(nodes).startswith(
        "Run it on each node, with the number of the node from 0 in PACELINE"
    )
    unknown = own_command_end(replace(answer, training_samples=None))
    assert unknown == "It does not stop at the target; it ends when the script ends by itself."
    assert "within 15,361 samples" in recommendation_text(answer)


def test_the_headline_of_a_weak_answer_says_so_beside_its_number(builder: ModuleType) -> None:
    answer = replace(builder.recommendation(), verified=None, provisional=True)
    answer = replace(answer, choice=replace(answer.choice, measured_seconds=None))
    assert prediction(answer).headline == "provisional: 9.48 s (7.29 s to 12.3 s)"
    cost = price(answer)
    assert cost is not None
    assert cost.headline == "$0.025 ($0.019 to $0.033)"


@pytest.mark.parametrize(
    ("inside", "num", "too_narrow"), [(0, 1, False), (0, 2, True), (2, 5, True), (3, 5, False)]
)
def test_intervals_are_too_narrow_by_a_binomial_rule(
    builder: ModuleType, inside: int, num: int, too_narrow: bool
) -> None:
    record = builder.prediction_record(10.0, 2.0, 1.0)
    checked = [
        PredictedAgainstMeasured(
            prediction=record, measured_seconds=11.0 if k < inside else 50.0, share_observed=0.1
        )
        for k in range(num)
    ]
    check = IntervalCheck(num_predictions=num, num_inside=inside, too_narrow=too_narrow)
    assert interval_check(checked) == check
    assert ("too narrow" in coverage(checked)) is too_narrow
    assert interval_check([]) is None


def test_intervals_that_proved_too_narrow_change_the_answer(builder: ModuleType) -> None:
    check = IntervalCheck(num_predictions=5, num_inside=2, too_narrow=True)
    answer = replace(builder.recommendation(), verified=None, provisional=True, interval_check=check)
    answer = replace(answer, choice=replace(answer.choice, measured_seconds=None))
    words = "Only 2 of the 5 predicted 90% intervals that this study could check held the measured time"
    assert prediction(answer).headline.startswith("a guess: ")
    assert words in prediction(answer).detail
    assert words in trust_in(answer).detail
    assert words in " ".join(recommendation_text(answer).split())
    # The intervals 7.29 s to 12.3 s and 14 s to 25 s do not overlap, but may if both are too narrow.
    near = replace(answer.baseline, seconds=Estimate(lower=14.0, median=19.0, upper=25.0))
    assert comparison(replace(answer, baseline=near)).headline == "not known which is sooner"
    right = replace(answer, baseline=near, interval_check=None)
    assert comparison(right).headline == "sooner by prediction"
