"""A run over two strategies, one of four ranks late: the answer says why it waits for nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from storage import open_storage
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration
from tests.tuner.service.desk import Desk, small_job
from tuner.advice.warnings import cautions
from tuner.domain.cluster import RankDelay
from tuner.domain.measurement import Purpose
from tuner.domain.recommendation import Recommendation
from tuner.search.policy import Stop, StopKind
from tuner.service.run import RunResult

LATE = (RankDelay(ranks=(1,), low=0.0, high=0.3),)
SPACE = {
    "batch_size": [64],
    "learning_rate": [0.03, 0.06, 0.12],
    "strategy": ["all_reduce", "gossip_pull"],
}
LAW = Law(samples=4e4, seconds_per_sample=1e-3, cores=64, hop_seconds=1e-4, delays=LATE)


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Desk, RunResult]]:
    """A run that arrived; tests only read it."""
    folder = tmp_path_factory.mktemp("told")
    with open_storage(f"sqlite:///{folder / 'paceline.db'}") as store:
        desk = Desk(folder, store, law=LAW)
        delay = {"ranks": [1], "low": 0.0, "high": 0.3}
        desk.job = small_job(
            cluster={"nodes": [4], "emulate": {"delay": delay}},
            space=SPACE,
            baseline={"nodes": 4, "batch_size": 64, "learning_rate": 0.02},
        )
        yield desk, desk.run()


def test_every_strategy_has_an_outlook_the_chosen_one_first(reported: tuple[Desk, RunResult]) -> None:
    answer = reported[1].recommendation
    assert [o.configuration.strategy for o in answer.strategies] == ["gossip_pull", "all_reduce"]
    chosen, other = answer.strategies
    assert chosen.configuration == answer.choice.configuration
    assert chosen.seconds == answer.choice.seconds
    assert (chosen.waits_for_slowest, other.waits_for_slowest) == (False, True)
    assert chosen.share_observed == 1.0


def test_outlooks_hold_what_the_law_takes(reported: tuple[Desk, RunResult]) -> None:
    desk, result = reported
    for outlook in result.recommendation.strategies:
        truth = desk.law.step_seconds(outlook.configuration)
        assert outlook.batch_seconds.median == pytest.approx(truth, rel=0.3)
        assert outlook.batch_seconds.lower < outlook.batch_seconds.median < outlook.batch_seconds.upper
    chosen = result.recommendation.strategies[0]
    truth = desk.law.samples_to_target(chosen.configuration)
    assert chosen.samples.median == pytest.approx(truth, rel=0.3)


def test_the_reason_stands_in_evidence_and_in_the_files(reported: tuple[Desk, RunResult]) -> None:
    _, result = reported
    words = result.recommendation.strategies[0].comparison
    assert words.startswith("gossip_pull")
    assert "because no rank waits for the delayed rank 1" in words
    assert words in result.recommendation.evidence
    written = Recommendation.from_dict(json.loads(result.files["recommendation.json"].read_text()))
    assert written == result.recommendation
    assert words in result.files["report.md"].read_text().replace("\\", "")


def test_delays_on_purpose_are_a_caution(reported: tuple[Desk, RunResult]) -> None:
    assert any("delayed on purpose" in words for words in reported[1].recommendation.warnings)


def test_ranks_that_were_lost_are_a_caution(tmp_path_factory: pytest.TempPathFactory) -> None:
    world = World(tmp_path_factory.mktemp("lost"))
    stop = Stop(kind=StopKind.NO_GAIN, reason="enough")
    folder = world.folder / "made"
    folder.mkdir()
    choice = configuration()
    slow = choice.replaced(nodes=4, strategy="gossip_pull", tau=1)
    seen = world.prober.slice(choice, Purpose.STATISTICS, 2.0, folder)
    world.keep(replace(seen, configuration=slow, lost_ranks=(3,)))
    world.keep(replace(seen, configuration=slow, lost_ranks=(1, 3)))
    words = [line for line in cautions(world.state(), stop, choice) if "lost" in line]
    assert len(words) == 2
    assert words[0].startswith("Rank 3 was lost in probe 1")
    assert words[1].startswith("Ranks 1 and 3 were lost in probe 2")
