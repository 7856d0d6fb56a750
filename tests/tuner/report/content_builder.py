"""Builds the content of a report as a search over a small job would leave it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from search_spaces import Configuration
from tuner.advice.strategy_words import contrast
from tuner.domain.analysis import (
    Analysis,
    CurveForecast,
    ForecastPoint,
    RateOutlook,
    RateRun,
    SamplesAtBatch,
    StepParts,
    TradeOff,
    WhatIf,
)
from tuner.domain.cluster import Cluster, RankDelay
from tuner.domain.ledger import PredictedAgainstMeasured, PredictionRecord, ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose, RankTiming, Spread
from tuner.domain.recommendation import (
    Alternative,
    Estimate,
    Recommendation,
    StrategyOutlook,
    TuningCost,
    Verification,
)
from tuner.job import Job
from tuner.report import ReportContent

TARGET = 0.95
DOLLARS_PER_NODE_SECOND = 2.4 / 3600


def job() -> Job:
    return Job.model_validate(
        {
            "name": "digits",
            "workload": {"path": "tuner.workloads.digits:Digits"},
            "cluster": {"nodes": [1, 2, 4, 8], "dollars_per_node_hour": 2.4},
            "goal": {"metric": "accuracy", "target": TARGET},
            "space": {
                "batch_size": {"low": 16, "high": 1024},
                "learning_rate": {"low": 0.001, "high": 1.0},
            },
            "baseline": {"nodes": 1, "batch_size": 64, "learning_rate": 0.01},
        }
    )


def configuration(nodes: int, batch_size: int, learning_rate: float) -> Configuration:
    return Configuration(
        nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy="all_reduce"
    )


def step_seconds(nodes: int, batch_size: int) -> float:
    return 0.004 + 0.0009 * batch_size / nodes + 0.005 * (nodes - 1) ** 1.5


def samples_to_target(batch_size: int) -> float:
    return 21_000 * (1 + batch_size / 800)


def seconds_to_target(nodes: int, batch_size: int) -> float:
    return samples_to_target(batch_size) / batch_size * step_seconds(nodes, batch_size)


def estimate(median: float, spread: float) -> Estimate:
    return Estimate(lower=median / spread, median=median, upper=median * spread)


def alternative(nodes: int, batch_size: int, learning_rate: float, spread: float = 1.3) -> Alternative:
    seconds = estimate(seconds_to_target(nodes, batch_size), spread)
    price = nodes * DOLLARS_PER_NODE_SECOND
    return Alternative(
        configuration=configuration(nodes, batch_size, learning_rate),
        seconds=seconds,
        dollars=Estimate(
            lower=seconds.lower * price, median=seconds.median * price, upper=seconds.upper * price
        ),
        probability_of_reaching=0.97,
    )


def landscape() -> list[Alternative]:
    made = [
        alternative(nodes, batch, 0.1, spread=1.2 + 0.1 * math.log2(nodes) + batch / 2000)
        for nodes in (1, 2, 4, 8)
        for batch in (16, 32, 64, 128, 256, 512, 1024)
    ]
    endless = Estimate(lower=700.0, median=math.inf, upper=math.inf)
    lost = replace(made[-1], seconds=endless, dollars=endless, probability_of_reaching=0.31)
    open_ended = replace(made[-8], seconds=replace(made[-8].seconds, upper=math.inf))
    return [*made[:-8], open_ended, *made[-7:-1], lost]


def _spread(median: float) -> Spread:
    return Spread(
        median=median, p10=median * 0.9, p90=median * 1.2, mean=median * 1.02, std=median * 0.1, count=25
    )


def timing_ranks(nodes: int, batch_size: int) -> tuple[RankTiming, ...]:
    share = batch_size // nodes
    return tuple(
        RankTiming(
            rank=rank,
            batch_size=share + (1 if rank < batch_size % nodes else 0),
            compute=_spread((0.004 + 0.0009 * share) * (1 + 0.03 * rank)),
            sync=_spread(0.005 * (nodes - 1) ** 1.5),
            input=_spread(0.0004),
            step=_spread(step_seconds(nodes, batch_size) + 0.0004),
        )
        for rank in range(nodes)
    )


def curve(
    nodes: int, batch_size: int, samples_end: float, handicap: float = 1.0, seed: int = 0
) -> tuple[CurvePoint, ...]:
    """Accuracy by a power law of samples that meets the target where `samples_to_target` says."""
    rng = np.random.default_rng(seed)
    reach = samples_to_target(batch_size) * handicap
    pace = step_seconds(nodes, batch_size) / batch_size
    points = []
    samples = 256.0
    while samples < samples_end * 1.15:
        seen = min(samples, samples_end)
        gap = 0.9 * (1 + 8 * seen / reach) ** (-math.log(0.9 / 0.05) / math.log(9))
        points.append(
            CurvePoint(
                training_seconds=seen * pace,
                step=int(seen / batch_size),
                samples=int(seen),
                value=float(1 - gap + rng.normal(0, 0.004)),
            )
        )
        samples *= 1.25
    return tuple(points)


def probe(number: int, what: Configuration, seen: Measurement, reason: str = "") -> ProbeRecord:
    return ProbeRecord(
        probe_id=number + 1,
        study_id=1,
        configuration=what,
        purpose=seen.purpose,
        trial_number=number,
        slices=(seen,),
        outcome=seen.outcome,
        reason=reason,
        lease=None,
        created_at=1_750_000_000.0 + number,
    )


def timing_probe(number: int, nodes: int, batch_size: int) -> ProbeRecord:
    what = configuration(nodes, batch_size, 0.1)
    steps = 30
    seen = Measurement(
        configuration=what,
        purpose=Purpose.TIMING,
        outcome=Outcome.STOPPED,
        ranks=timing_ranks(nodes, batch_size),
        oversubscribed=nodes > 2,
        step=steps,
        samples=steps * batch_size,
        training_seconds=steps * step_seconds(nodes, batch_size),
        startup_seconds=1.2,
        charged_seconds=1.2 + steps * step_seconds(nodes, batch_size),
        charged_dollars=0.001 * nodes,
    )
    return probe(number, what, seen, "timing steps done")


def training_probe(
    number: int,
    what: Configuration,
    purpose: Purpose,
    outcome: Outcome,
    points: tuple[CurvePoint, ...],
    reason: str = "",
    error: str | None = None,
) -> ProbeRecord:
    last = points[-1] if points else CurvePoint(training_seconds=0.0, step=0, samples=0, value=0.0)
    seen = Measurement(
        configuration=what,
        purpose=purpose,
        outcome=outcome,
        curve=points,
        step=last.step,
        samples=last.samples,
        training_seconds=last.training_seconds,
        scoring_seconds=0.05 * len(points),
        startup_seconds=1.1,
        charged_seconds=last.training_seconds + 0.05 * len(points) + 1.1,
        charged_dollars=(last.training_seconds + 1.1) * what.nodes * DOLLARS_PER_NODE_SECOND,
        error=error,
    )
    return probe(number, what, seen, reason)


def probes() -> list[ProbeRecord]:
    wild = tuple(replace(p, value=0.1 + 0.3 / (k + 1)) for k, p in enumerate(curve(1, 512, 9000)))
    broken = "rank 1: RuntimeError: expected a <Tensor> & got None\nrank 0: connection closed by peer"
    stopped, statistics = Outcome.STOPPED, Purpose.STATISTICS
    return [
        training_probe(
            0, configuration(1, 64, 0.01), statistics, stopped, curve(1, 64, 30_000, 2.6, 1), "given up"
        ),
        timing_probe(1, 1, 64),
        timing_probe(2, 2, 256),
        timing_probe(3, 4, 256),
        timing_probe(4, 8, 1024),
        training_probe(
            5, configuration(1, 256, 0.1), statistics, Outcome.PAUSED, curve(1, 256, 26_000, 1.0, 2)
        ),
        training_probe(
            6, configuration(1, 512, 0.1), statistics, stopped, curve(1, 512, 20_000, 1.1, 3), "given up"
        ),
        training_probe(7, configuration(1, 512, 1.0), statistics, Outcome.DIVERGED, wild, "loss became NaN"),
        training_probe(
            8, configuration(1, 32, 0.03), statistics, stopped, curve(1, 32, 15_000, 1.4, 4), "given up"
        ),
        training_probe(9, configuration(2, 128, 0.1), statistics, Outcome.FAILED, (), "rank 1 died", broken),
        training_probe(
            10, configuration(1, 1024, 0.3), statistics, stopped, curve(1, 1024, 60_000, 1.05, 5), "given up"
        ),
        training_probe(
            11,
            configuration(4, 256, 0.1),
            Purpose.TRAINING,
            Outcome.REACHED,
            curve(4, 256, samples_to_target(256) * 1.02, 1.0, 6),
            "target reached",
        ),
    ]


def checked(measured: float = 9.31) -> list[PredictedAgainstMeasured]:
    made = []
    for k, (ratio, spread, share) in enumerate(
        [
            (1.9, 2.6, 0.0),
            (1.5, 1.9, 0.05),
            (0.8, 1.6, 0.1),
            (1.3, 1.2, 0.2),
            (1.1, 1.3, 0.4),
            (1.02, 1.1, 0.7),
        ]
    ):
        centre = measured * ratio
        made.append(
            PredictedAgainstMeasured(
                prediction=prediction_record(centre, spread, created_at=1_750_000_000.0 + k),
                measured_seconds=measured,
                share_observed=share,
            )
        )
    slower = prediction_record(70.0, 1.5, created_at=1_750_000_001.5)
    return [*made, PredictedAgainstMeasured(prediction=slower, measured_seconds=61.0, share_observed=0.15)]


def prediction_record(median: float, spread: float, created_at: float) -> PredictionRecord:
    quantiles = {0.05: median / spread, 0.5: median, 0.95: median * spread}
    return PredictionRecord(
        study_id=1,
        configuration=configuration(4, 256, 0.1),
        created_at=created_at,
        quantiles=quantiles,
        dollars={level: seconds * 4 * DOLLARS_PER_NODE_SECOND for level, seconds in quantiles.items()},
        probability_of_reaching=0.97,
        num_slices=5,
        seconds_observed=0.0,
    )


def recommendation() -> Recommendation:
    choice = replace(
        alternative(4, 256, 0.1),
        measured_seconds=9.31,
        share_observed=1.0,
        samples_observed=26_600,
        seconds_observed=9.4,
    )
    return Recommendation(
        job_name="digits",
        study_name="digits-2",
        created_at=1_750_000_000.0,
        goal="accuracy >= 0.95, soonest",
        choice=choice,
        runner_up=alternative(4, 512, 0.1, spread=1.5),
        baseline=replace(
            alternative(1, 64, 0.01),
            seconds=estimate(91.0, 1.4),
            dollars=estimate(91.0 * DOLLARS_PER_NODE_SECOND, 1.4),
            share_observed=0.62,
            samples_observed=30_000,
            seconds_observed=56.0,
        ),
        verified=Verification(
            reached=True,
            training_seconds=9.31,
            dollars=0.0248,
            value=0.9512,
            predicted=estimate(9.84, 1.3),
            share_observed=0.2,
        ),
        provisional=False,
        evidence=(
            "Step times were measured on 1, 2, 4 and 8 nodes, 4 nodes with 64 samples a rank among them.",
            "The curve of batch 256 at learning rate 0.1 was measured to 26,000 samples.",
        ),
        warnings=("8 ranks shared 2 cores: times on 8 nodes say little about nodes of their own.",),
        stop_reason="a run reached the target",
        tuning=TuningCost(
            seconds=212.0,
            dollars=0.31,
            num_probes=12,
            seconds_by_purpose={"timing": 21.0, "statistics": 152.0, "training": 39.0},
            seconds_by_part={"training": 158.0, "scoring": 28.0, "start-up": 24.0, "other": 2.0},
        ),
        checkpoint="paceline-out/digits/probes/12/checkpoint-41.pt",
        command="torchrun --nnodes 4 --nproc-per-node 1 train.py --batch-size 256 --learning-rate 0.1",
    )


def strategies() -> tuple[StrategyOutlook, ...]:
    """Gossip chosen on a cluster one of whose ranks is late; one strategy out of reach."""

    def outlook(
        strategy: str, batch: float, samples: float, waits: bool, share: float = 0.0, **knobs: float
    ) -> StrategyOutlook:
        what = Configuration(nodes=4, batch_size=256, learning_rate=0.1, strategy=strategy, **knobs)
        return StrategyOutlook(
            configuration=what,
            batch_seconds=estimate(batch, 1.1),
            samples=estimate(samples, 1.3),
            seconds=estimate(batch * samples / 256, 1.35),
            share_observed=share,
            waits_for_slowest=waits,
        )

    chosen = outlook("gossip_pull", 0.16, 39_000.0, False, 0.62, tau=1)
    others = (
        outlook("elastic_averaging", 0.155, 48_000.0, False, beta=0.8, tau=10),
        outlook("local_sgd", 0.236, 33_000.0, True, 0.08, tau=8),
        outlook("all_reduce", 0.31, 30_000.0, True, 0.35),
        outlook("diloco", 0.23, math.inf, True, outer_learning_rate=0.7, outer_momentum=0.9, tau=16),
    )
    late = Cluster(node_counts=(1, 2, 4), delays=(RankDelay(ranks=(1,), low=0.0, high=0.3),))
    return (
        replace(chosen, comparison=contrast(chosen, others[2], late, chosen=True)),
        *(replace(other, comparison=contrast(other, chosen, late, chosen=False)) for other in others),
    )


def recommended_gossip() -> Recommendation:
    outlooks = strategies()
    answer = recommendation()
    choice = replace(answer.choice, configuration=outlooks[0].configuration)
    evidence = (*answer.evidence, outlooks[0].comparison)
    return replace(answer, choice=choice, strategies=outlooks, evidence=evidence)


def content(
    *,
    answer: Recommendation | None = None,
    seen: Sequence[ProbeRecord] | None = None,
    weighed: Sequence[Alternative] | None = None,
    judged: Sequence[PredictedAgainstMeasured] | None = None,
) -> ReportContent:
    return ReportContent(
        job=job(),
        job_path=Path("job.toml"),
        recommendation=answer or recommendation(),
        probes=probes() if seen is None else seen,
        landscape=landscape() if weighed is None else weighed,
        checked=checked() if judged is None else judged,
        fit_summaries={
            "seconds": ["A step takes 4.1 ms and 0.9 ms a sample; the fit errs by 6% at most."],
            "samples": [
                "The noise scale is about 800 samples.",
                "The exponent of the curve stayed at its prior.",
            ],
        },
    )


def analysis(*, priced: bool = True) -> Analysis:
    alternatives = [alternative(nodes, 256, 0.1) for nodes in (8, 4, 2)]
    trained = next(p for p in probes() if p.measurement is not None and p.measurement.trained_curve)
    last = trained.measurement.trained_curve[-1]
    point = ForecastPoint(value=last.value, samples=estimate(float(last.samples), 1.0))
    end = ForecastPoint(value=TARGET, samples=estimate(last.samples * 3.0, 1.5))
    return Analysis(
        what_if=(
            WhatIf(
                topic="nodes",
                change="only 4 of the 8 nodes are free (half)",
                configuration=configuration(4, 256, 0.1),
                seconds=estimate(12.0, 1.5),
                dollars=estimate(0.4, 1.5) if priced else None,
                node_hours=estimate(0.013, 1.5),
                probability_of_reaching=0.9,
                note="the recommended configuration needs more nodes",
            ),
            WhatIf(topic="links", change="links are slower", note="not measured: nothing was timed"),
        ),
        trade_offs=tuple(
            TradeOff(
                configuration=a.configuration,
                seconds=a.seconds,
                dollars=a.dollars if priced else None,
                node_hours=a.seconds.times(a.configuration.nodes / 3600),
                is_choice=place == 1,
            )
            for place, a in enumerate(alternatives)
        ),
        step_parts=tuple(
            StepParts(
                configuration=configuration(nodes, 256, 0.1),
                seconds=estimate(0.1, 1.1),
                compute_seconds=0.06,
                input_seconds=0.01,
                waiting_seconds=0.01,
                communication_seconds=0.02,
                is_timed=nodes < 4,
            )
            for nodes in (1, 2, 4)
        ),
        samples_by_batch=tuple(
            SamplesAtBatch(
                configuration=configuration(4, batch, 0.1),
                samples=estimate(samples_to_target(batch), 1.3),
                measured_samples=None,
                probability_of_reaching=0.9,
            )
            for batch in (64, 256)
        ),
        critical_batch=estimate(800.0, 2.0),
        critical_batch_basis="runs with different batch sizes",
        learning_rates=tuple(
            RateOutlook(
                batch_size=batch, learning_rate=rate, probability_of_reaching=0.8, is_best=rate == 0.1
            )
            for batch in (64, 256)
            for rate in (0.01, 0.1, 1.0)
        ),
        rate_runs=(RateRun(batch_size=256, learning_rate=0.1, trial_number=1, result="missed"),),
        curve_forecasts=(
            CurveForecast(
                probe_id=trained.probe_id,
                trial_number=trained.trial_number,
                configuration=trained.configuration,
                samples_observed=last.samples,
                result="open",
                probability_of_reaching=0.7,
                points=(point, end),
            ),
        ),
    )
