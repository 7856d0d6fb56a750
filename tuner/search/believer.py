"""Compute the forecasts of a study from its state, the same for a search and for its report."""

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

    The search, `--verify` and a later `report` get the same forecasts for the same state, because the draws
    depend on the seed alone. Values that do not change between states are cached.

    Args:
        seed: Seed of the draws, and of the subset of candidates if the space has too many.
        prior: Prior slopes.
        past: Priors of the laws from past studies, if the job trains.
        calibration: Correction of the forecasts' widths.
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
        #: The last forecasts, and the ended slices that they are based on.
        self._believed: tuple[tuple[object, ...], Beliefs] | None = None

    def believe(self, state: SearchState) -> Beliefs | None:
        """Forecasts of all candidates; None if there are no candidates."""
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
        """Median samples after which imported runs first improved clearly; 0 if there are none."""
        return self._past.rise_samples

    def knows_laws(self, state: SearchState) -> bool:
        """Whether the laws cover all axes of the space. They do not if the job replays a recording."""
        return state.job.probe.recording is None

    def prospects(self, state: SearchState, beliefs: Beliefs, incumbent: Configuration) -> Prospects:
        """The expected prospects after the slices in flight have ended.

        It assumes that each slice in flight shows its expected result, which reduces the variance of all
        candidates that correlate with it (kriging believer; Ginsbourger et al. 2010).

        Args:
            state: State of the search.
            beliefs: Its forecasts.
            incumbent: The candidate that others are compared with; its slice in flight is ignored.
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
        """Slope models of the candidates and the started runs."""
        kinds = tuple(dict.fromkeys([*(run_key(state.job, c) for c in found), *state.runs]))
        if self._slopes is None or self._slopes.kinds != kinds:
            self._slopes = SlopeModels(kinds, state.cluster, self._prior)
        return self._slopes
