"""What is believed of a study: one way from its state to its beliefs, for a search and for its report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.search.beliefs import Beliefs, believe, candidates
from tuner.search.calibration import NO_CALIBRATION, Calibration
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.prospects import Prospects
from tuner.search.runs import run_key
from tuner.search.slope_beliefs import BELIEVED_SAMPLES_SD, SlopeModels
from tuner.search.slope_priors import TEXTBOOK, SlopeBeliefs
from tuner.search.state import SearchState


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
        self._slopes: SlopeModels | None = None
        #: The last beliefs, and the slices they rest on: slices in flight do not change them.
        self._believed: tuple[tuple[object, ...], Beliefs] | None = None

    def believe(self, state: SearchState) -> Beliefs | None:
        """What is believed of every candidate; None where there is none."""
        known = (state.given_up, tuple((p.probe_id, len(p.slices), p.outcome) for p in state.probes))
        if self._believed is None or self._believed[0] != known:
            rng = np.random.default_rng(self.seed)
            found = candidates(state, rng)
            if not found:
                return None
            slopes = self.slopes(state, found)
            self._believed = known, believe(state, found, rng, self._past, slopes, self._calibration)
        return self._believed[1]

    @property
    def rise_samples(self) -> float:
        """Samples after which imported runs left their start; 0 without any."""
        return self._past.rise_samples

    def knows_laws(self, state: SearchState) -> bool:
        """Whether laws say how all axes act: they do not where the space is a list of recorded runs."""
        return state.job.probe.recording is None

    def prospects(self, state: SearchState, beliefs: Beliefs, incumbent: Configuration) -> Prospects:
        """The prospects as they will be once the slices in flight have ended.

        They are taken to show what is expected of them (kriging believer; Ginsbourger et al. 2010).

        Args:
            state: What was measured.
            beliefs: What is believed of it.
            incumbent: What candidates are compared with: what its slice shows is held against none.
        """
        in_flight = {a.configuration for a in state.capacity.under_way if a.purpose is not Purpose.TIMING}
        in_flight.discard(incumbent)
        prospects = beliefs.prospects
        left = np.ones(len(prospects.configurations))
        for i, configuration in enumerate(prospects.configurations):
            if configuration in in_flight:
                variance = float(prospects.variance_log[i])
                shared = prospects.shared_with(i)
                shared[i] = 1.0
                left *= 1.0 - shared * variance / (variance + BELIEVED_SAMPLES_SD**2)
        return prospects.narrowed(left) if in_flight else prospects

    def slopes(self, state: SearchState, found: Sequence[Configuration]) -> SlopeModels:
        """The slope models of the candidates' statistics, and of the runs'."""
        kinds = tuple(dict.fromkeys([*(run_key(state.job, c) for c in found), *state.runs]))
        if self._slopes is None or self._slopes.kinds != kinds:
            self._slopes = SlopeModels(kinds, state.cluster, self._prior)
        return self._slopes
