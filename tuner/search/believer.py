"""Computes the forecasts of a search from its measurements, with caches that save time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_spaces import Configuration
from tuner.domain.measurement import Purpose
from tuner.search.beliefs import Beliefs, believe, candidates
from tuner.search.calibration import NO_CALIBRATION, Calibration
from tuner.search.law_priors import NO_PAST, PastLaws
from tuner.search.prospects import Prospects
from tuner.search.run_subset import modelled
from tuner.search.runs import run_key
from tuner.search.slope_beliefs import BELIEVED_SAMPLES_SD, SlopeModels
from tuner.search.slope_priors import TEXTBOOK, SlopeBeliefs
from tuner.search.state import SearchState


class Believer:
    """Forecasts the time to target of all candidate configurations, and caches the results.

    The search, `--verify` and a later `report` get the same forecasts from the same measurements, because all
    random numbers depend on the seed alone.

    Args:
        seed: Seed of the random numbers: posterior samples, and the subset of candidates if the search space
            is large.
        prior: Prior of the coefficients of the linear regressions, which predict logarithms of times.
        past: Values of the parameters of the other models in past studies and imported runs, which serve as
            priors.
        calibration: Factor that corrects the widths of the forecast intervals, from errors of earlier
            studies.
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
        #: A value that identifies the measurements of the last forecasts, and the last forecasts.
        self._believed: tuple[tuple[object, ...], Beliefs] | None = None

    def believe(self, state: SearchState, also: Sequence[Configuration] = ()) -> Beliefs | None:
        """Forecasts the time to target of all candidates; None if there are no candidates.

        Args:
            state: State of the search.
            also: Configurations whose time to target is forecast too, although the search does not consider
                them, for example because they are outside the search space.
        """
        probes = tuple((p.probe_id, len(p.slices), p.outcome) for p in state.probes)
        known = (state.given_up, probes, tuple(also))
        if self._believed is None or self._believed[0] != known:
            rng = np.random.default_rng(self.seed)
            state = modelled(state)
            found = list(dict.fromkeys([*candidates(state, rng), *also]))
            if not found:
                return None
            slopes = self.slopes(state, found)
            self._believed = known, believe(state, found, rng, self._past, slopes, self._calibration)
        return self._believed[1]

    def refit(self, state: SearchState, configurations: Sequence[Configuration]) -> Beliefs:
        """Fits the models to a state with another target or other nodes, and forecasts some configurations.

        The result is not cached.

        Args:
            state: The state.
            configurations: The configurations to forecast.
        """
        state, rng = modelled(state), np.random.default_rng(self.seed)
        slopes = self.slopes(state, configurations)
        return believe(state, configurations, rng, self._past, slopes, self._calibration)

    @property
    def rise_samples(self) -> float:
        """Median number of samples after which imported runs first improved; 0 without imported runs."""
        return self._past.rise_samples

    def knows_laws(self, state: SearchState) -> bool:
        """Whether the formulas with fitted parameters cover all axes of the search space.

        They do unless the job replays a recording.
        """
        return state.job.probe.recording is None

    def prospects(self, state: SearchState, beliefs: Beliefs, incumbent: Configuration) -> Prospects:
        """Computes the forecasts that are expected once the slices that are now running have ended.

        Each running slice is assumed to measure its expected result. Then the means stay the same, and the
        variance decreases for every candidate that is correlated with the configuration of the slice (kriging
        believer; Ginsbourger et al. 2010).

        Args:
            state: State of the search.
            beliefs: The present forecasts, which do not know the results of the running slices.
            incumbent: The candidate with the smallest expected cost. A running slice of this candidate is not
                taken into account.
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
        """Returns the linear regressions of the candidates, cached until candidates or started runs change.

        Args:
            state: State of the search.
            found: The candidate configurations.
        """
        kinds = tuple(dict.fromkeys([*(run_key(state.job, c) for c in found), *state.runs]))
        if self._slopes is None or self._slopes.kinds != kinds:
            self._slopes = SlopeModels(kinds, state.cluster, self._prior)
        return self._slopes
