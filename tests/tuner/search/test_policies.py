"""The conformance suite of policies, run over each of them."""

from __future__ import annotations

from tests.tuner.search.conformance import PolicyConformance
from tests.tuner.search.world import World, configuration
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.policy import Policy
from tuner.search.train_policy import TrainPolicy


class TestModelPolicy(PolicyConformance):
    def make(self, world: World) -> Policy:
        return ModelPolicy(Believer(seed=3))


class TestOptunaPolicy(PolicyConformance):
    def make(self, world: World) -> Policy:
        return OptunaPolicy()


class TestTrainPolicy(PolicyConformance):
    def make(self, world: World) -> Policy:
        return TrainPolicy(configuration(2, 64, 0.1), expected_seconds=60.0)
