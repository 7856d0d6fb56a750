"""Whether steps are timed alone, or seen while a run trains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from benchmarks.made_search import EPOCH_SAMPLES, made_cluster, made_job, made_probes
from tuner.search.acquisition import Acquisition
from tuner.search.believer import Believer
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.state import SearchState, read_state


def made_state(startup_seconds: float) -> SearchState:
    """A state whose slices each took so long to start."""
    probes = [
        replace(
            probe,
            slices=tuple(
                replace(
                    m, startup_seconds=startup_seconds, charged_seconds=m.charged_seconds + startup_seconds
                )
                for m in probe.slices
            ),
        )
        for probe in made_probes(1)
    ]
    cluster = replace(made_cluster(), nodes_share_host=False)
    return read_state(made_job(), cluster, probes, EPOCH_SAMPLES)


def num_timed(startup_seconds: float) -> int:
    """Candidates whose next slice would time steps alone."""
    state = made_state(startup_seconds)
    beliefs = Believer().believe(state)
    assert beliefs is not None
    # Of each candidate, 0.6 of what is unknown of log seconds is how long a step takes.
    speeds = np.sqrt(0.6 * beliefs.prospects.variance_log)
    acquisition = Acquisition(state, beliefs, replace(beliefs.prospects, log_seconds_sd=speeds))
    opportunity = OpportunityCost(state=state, leader=None)
    options = [acquisition._option(i, opportunity) for i in range(len(beliefs.configurations))]
    return sum(option.is_timing for option in options if option is not None)


def test_steps_are_timed_alone_less_where_starting_up_is_most_of_the_cost() -> None:
    assert 0 < num_timed(60.0) < num_timed(0.2)
