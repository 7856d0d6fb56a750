"""What is believed of a study: one way from its state to its beliefs, for a search and for its report."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.slope_predictor import SlopePredictor, regret_bound
from tuner.search.beliefs import Beliefs, believe, candidates, prices
from tuner.search.calibration import NO_CALIBRATION, Calibration
from tuner.search.improvement import proven, recommended
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.slope_beliefs import SampleSlopes, SlopeModels
from tuner.search.slope_priors import TEXTBOOK, SlopeBeliefs
from tuner.search.state import SearchState, run_key

Array = npt.NDArray[np.float64]

#: Ends within so much of each other (log), and so many of them, are one limit that all runs have.
_ALIKE, _ENDS_ALIKE = 0.05, 2


class Believer:
    """Fits the models to states of one study.

    The same state is believed the same by the search, by `--verify` and by a later `report`: the draws depend
    on the seed alone. What does not change between states is cached.

    Args:
        seed: Of the draws, and of the candidates where a space has too many.
        prior: Prior slopes.
        past: What past studies found of the laws, where the job trains.
        calibration: How wrong forecasts of past studies were.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        prior: SlopeBeliefs = TEXTBOOK,
        past: PastLaws = NO_PAST,
        calibration: Calibration = NO_CALIBRATION,
    ) -> None:
        self.seed = seed
        self._calibration = calibration
        self._prior = prior
        self._past = past
        self._models: SlopeModels | None = None
        self._slopes: SampleSlopes | None = None
        #: The last beliefs of laws, and the slices they rest on: slices in flight do not change them.
        self._believed: tuple[tuple[object, ...], Beliefs] | None = None

    def believe(self, state: SearchState) -> Beliefs | None:
        """What is believed of every candidate; None where there is none."""
        return self.of_list(state) if is_listed(state) else self._of_laws(state)

    def of_list(self, state: SearchState) -> Beliefs:
        """What is believed of every configuration of a list."""
        predictor = self.slopes(state)
        price = prices(state, predictor.configurations)
        longest = log_longest(state, predictor)
        choice = proven(predictor, price, longest, recommended(predictor, price, longest)[0])
        forecast = self._calibration.stretched(predictor.forecast())
        hopeless = bool(predictor.status.ended[choice])
        return Beliefs(
            predictor=predictor,
            forecast=forecast,
            price=price,
            recommended=None if hopeless else predictor.configurations[choice],
            regret_bound=regret_bound(forecast, price, choice),
        )

    def slopes(self, state: SearchState, in_flight: Collection[Configuration] = ()) -> SlopePredictor:
        """What the slope models predict.

        Args:
            state: What was measured.
            in_flight: Candidates that count as if they had shown what is expected of them.
        """
        return self.models(state).predict(state, in_flight)

    def models(self, state: SearchState) -> SlopeModels:
        """The slope models of a state's candidates."""
        if self._models is None:
            listed = {*state.space.candidates(), *(run.configuration for run in state.runs.values())}
            self._models = SlopeModels(sorted(listed), state.cluster, self._prior)
        return self._models

    def _of_laws(self, state: SearchState) -> Beliefs | None:
        known = (state.given_up, tuple((p.probe_id, len(p.slices), p.outcome) for p in state.probes))
        if self._believed is None or self._believed[0] != known:
            rng = np.random.default_rng(self.seed)
            found = candidates(state, rng)
            if not found:
                return None
            beliefs = believe(state, found, rng, self._past, self._sample_slopes(state, found))
            forecast = self._calibration.stretched(beliefs.forecast)
            self._believed = known, replace(beliefs, forecast=forecast)
        return self._believed[1]

    def _sample_slopes(self, state: SearchState, found: Sequence[Configuration]) -> SampleSlopes:
        """The slope models of the candidates' statistics, and of the runs'."""
        kinds = tuple(dict.fromkeys([*(run_key(state.job, c) for c in found), *state.runs]))
        if self._slopes is None or self._slopes.kinds != kinds:
            self._slopes = SampleSlopes(kinds, state.cluster, self._prior)
        return self._slopes


def log_longest(state: SearchState, predictor: SlopePredictor) -> Array:
    """Logarithm of the longest training of each candidate that the goal, or what was seen to end, allows.

    Runs that ended short of the target after as many samples, or seconds, show that all end there.

    Args:
        state: What was measured.
        predictor: What is believed.
    """
    deadline = state.job.goal.deadline
    longest = np.full(len(predictor.configurations), math.inf if deadline is None else math.log(deadline))
    ended = [run.measurement for run in state.runs.values() if run.has_ended]
    per_sample = predictor.seconds.model.mean
    for values, base in (
        ([float(m.samples) for m in ended], per_sample),
        ([m.training_seconds for m in ended], np.zeros_like(per_sample)),
    ):
        logs = np.log(np.maximum(values, 1e-9)) if values else np.zeros(0)
        if len(logs) and np.count_nonzero(logs > logs.max() - _ALIKE) >= _ENDS_ALIKE:
            longest = np.minimum(longest, logs.max() + _ALIKE + base)
    return np.asarray(longest, dtype=float)


def is_listed(state: SearchState) -> bool:
    """Whether a state's space is a list of recorded runs."""
    return state.job.probe.recording is not None
