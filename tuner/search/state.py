"""State of a search, derived from its ledger alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from search_spaces import Configuration, RanksWithin, SearchSpace
from tuner.analytic.predictor import RunState
from tuner.analytic.rate_edge import RunEvidence
from tuner.domain.charge import Charge
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.ledger import ProbeRecord
from tuner.probes.score_schedule import ScoreSchedule, score_schedule
from tuner.probes.terms import UNKNOWN_STARTUP_SECONDS, ProbeTerms, probe_terms
from tuner.search.capacity import Capacity
from tuner.search.runs import Run, RunCache, is_interrupted, paid_slices, run_key
from tuner.search.start_value import guessed_start, progress_of
from tuner.search.timings import TimingKey, timing_key

#: Scripts whose ends differ by a smaller share end alike.
_ALIKE = 0.95
#: Fitting, deciding and storing between two slices: not charged, but part of the elapsed time.
_DECIDING_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """What a search knows and has spent.

    Args:
        job: The job.
        cluster: What it trains on.
        space: Its space, less what was seen to run out of memory.
        probes: Every probe, oldest first.
        runs: The most advanced run of each statistics (`run_key`).
        start_value: The metric of the untrained model; None before any scoring.
        epoch_samples: Size of the training set.
        spent: Everything charged; nothing yet of the slices in flight.
        schedule: When the user's script scores.
        capacity: Limits on concurrent slices, and the slices in flight.
        past_faults: Probes that failed before this run of the search: what broke then may be fixed.
    """

    job: Job
    cluster: Cluster
    space: SearchSpace
    probes: tuple[ProbeRecord, ...]
    runs: dict[Configuration, Run]
    start_value: float | None
    epoch_samples: int
    spent: Charge
    schedule: ScoreSchedule = field(default_factory=ScoreSchedule)
    capacity: Capacity = field(default_factory=Capacity)
    past_faults: frozenset[int] = frozenset()

    @property
    def elapsed_seconds(self) -> float:
        """Elapsed time with any slice in flight; shared time counts once."""
        shared = sum(measurement.shared_seconds for measurement in self.slices)
        return self.spent.seconds - shared + self.capacity.elapsed_seconds

    def dollars(self, *, to_end: bool = False) -> float:
        """Dollars charged, and what the slices in flight have cost so far.

        Args:
            to_end: Whether these count with what they are expected to cost until they end, if that is more.
        """
        price = self.cluster.dollars_per_second
        return self.spent.dollars + sum(
            a.held_seconds(to_end=to_end) * price(a.configuration) for a in self.capacity.under_way
        )

    def node_seconds(self, *, to_end: bool = False) -> float:
        """Seconds that nodes were held, each node counted; slices in flight count as in `dollars`."""
        charged = sum(m.charged_seconds * self.cluster.nodes_held(m.configuration) for m in self.slices)
        return charged + sum(a.held_seconds(to_end=to_end) * a.num_nodes for a in self.capacity.under_way)

    @property
    def keys_under_way(self) -> set[Configuration]:
        """Statistics (`run_key`) whose run is in flight."""
        return {
            run_key(self.job, active.configuration)
            for active in self.capacity.under_way
            if active.purpose is not Purpose.TIMING
        }

    def fits(self, configuration: Configuration) -> bool:
        """Whether there is capacity for a configuration now."""
        return self.capacity.fits(self.cluster.nodes_held(configuration))

    @property
    def further_trainings(self) -> int:
        """Trainings that the answer serves besides one that reaches the target during the search.

        All of them where ranks are emulated: that trains nothing on the cluster which is asked about.
        """
        trainings = self.job.goal.trainings
        return trainings - 1 if self.terms.is_training else trainings

    @cached_property
    def slices(self) -> tuple[Measurement, ...]:
        """Every slice of every probe."""
        return tuple(measurement for probe in self.probes for measurement in probe.slices)

    @cached_property
    def terms(self) -> ProbeTerms:
        """How slices are charged and scored."""
        return probe_terms(self.job, self.cluster, self.slices, self.epoch_samples)

    def next_score_samples(self, configuration: Configuration, samples: int) -> int | None:
        """Samples at which a run's next score is due; None where only past runs can tell.

        Args:
            configuration: What it runs with.
            samples: Samples that it has seen.
        """
        if self.schedule.has_scores:
            return self.schedule.next_after(configuration, samples) or samples + 1
        return self.terms.next_score_samples(samples)

    @cached_property
    def given_up(self) -> frozenset[Configuration]:
        """Configurations that failed by their own fault when last run: none is asked again unchanged."""
        found: set[Configuration] = set()
        for probe in self.probes:
            if probe.probe_id in self.past_faults or not probe.slices:
                continue
            if not probe.outcome.is_fault:
                found.discard(probe.configuration)
            elif not probe.slices[-1].infrastructure_fault:
                found.add(probe.configuration)
        return frozenset(found)

    @cached_property
    def has_scores(self) -> bool:
        """Whether a configuration was scored that neither failed nor diverged."""
        given_up, broken = self.given_up, (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY)
        return any(
            run.measurement.trained_curve
            and run.probe.outcome not in broken
            and run.configuration not in given_up
            for run in self.runs.values()
        )

    def script_ends(self, configurations: Sequence[Configuration]) -> list[float]:
        """Samples after which the user's script ends by itself; infinite where it is not known.

        One run may end early for a reason of its own. Two or more that end after the same samples or the same
        steps, and none that went further, show that all do.
        """
        seen = [(run.measurement, run.ended_by_itself) for run in self.runs.values()]
        samples = _common_end([(m.samples, ended) for m, ended in seen])
        steps = _common_end([(m.step, ended) for m, ended in seen])
        if not self.terms.ends_itself or (samples is None and steps is None):
            return [math.inf] * len(configurations)
        # Where both may end it, the later one does.
        return [max(samples or 0, (steps or 0) * c.batch_size) for c in configurations]

    @property
    def num_faults(self) -> int:
        """Probes that ended by a fault."""
        return sum(probe.outcome.is_fault for probe in self.probes)

    @cached_property
    def startups(self) -> list[float]:
        """Seconds that each start took that was measured, probe by probe."""
        return [m.startup_seconds for m in self.slices if m.startup_seconds > 0]

    @cached_property
    def startup_seconds(self) -> float:
        """What starting another slice costs before its first step."""
        return self.terms.later_startup(self.startups)

    @cached_property
    def is_scored(self) -> bool:
        """Whether the scores of any run tell how long it may take.

        Of a list any score does: the first probes compare several runs. Of a job that trains, a run must have
        gained clearly since its first score: many stay at their start for long, and rise then.
        """
        if not self.terms.pays_to_resume:
            return any(run.measurement.trained_curve for run in self.runs.values())
        return any(run.arrived or run.rise_samples is not None for run in self.runs.values())

    @cached_property
    def rise_samples(self) -> float:
        """Samples after which runs leave their start, the median of those that did; 0 without any."""
        found = [run.rise_samples for run in self.runs.values() if run.rise_samples is not None]
        return float(np.median(found)) if found else 0.0

    @cached_property
    def overhead(self) -> float:
        """Charged seconds over training seconds while a run trains: scoring and checkpoints, at least 1."""
        training = charged = 0.0
        for run in self.runs.values():
            for measurement, trained in paid_slices(run.probe):
                if is_interrupted(measurement, trained):
                    continue
                training += trained
                charged += (
                    measurement.charged_seconds - measurement.startup_seconds - measurement.repeated_seconds
                )
        return max(1.0, charged / training) if training > 1.0 else 1.1

    @cached_property
    def slice_seconds(self) -> float:
        """What a slice costs besides its training and scoring: start-up, checkpoint, and deciding."""
        others = [
            measurement.charged_seconds
            - measurement.startup_seconds
            - measurement.repeated_seconds
            - measurement.scoring_seconds
            - trained
            for probe in self.probes
            for measurement, trained in paid_slices(probe)
            if not is_interrupted(measurement, trained)
        ]
        besides = max(float(np.median(others)), 0.0) if others else 0.0
        return self.startup_seconds + besides + _DECIDING_SECONDS

    @cached_property
    def more_ranks_seconds(self) -> float:
        """What a slice on more ranks than any before costs besides its training and scoring.

        The first slice shows the most that it can be: its ranks had to import everything, too. Of later ones,
        the longest start was that of new ranks.
        """
        first, *later = self.startups or [0.0]
        longest = max([min(first, UNKNOWN_STARTUP_SECONDS), *later])
        return max(longest + _DECIDING_SECONDS, self.slice_seconds)

    @cached_property
    def parameter_bytes(self) -> int:
        """Bytes of the model's parameters, 0 if no probe reported them."""
        return max((m.parameter_bytes for m in self.slices), default=0)

    def timed(self) -> set[TimingKey]:
        """All whose steps were timed."""
        configurations = {m.configuration for m in self.slices if m.ranks}
        return {timing_key(configuration, self.cluster) for configuration in configurations}

    def failed_timings(self) -> set[TimingKey]:
        """All whose timing ended without a step time."""
        return {
            timing_key(p.configuration, self.cluster)
            for p in self.probes
            if p.purpose is Purpose.TIMING and not p.outcome.can_continue
        } - self.timed()

    def evidence(self) -> tuple[list[RunEvidence], dict[Configuration, RunState]]:
        """The runs as the models see them, and where each stands."""
        evidence: list[RunEvidence] = []
        states: dict[Configuration, RunState] = {}
        sign, target = self.job.goal.sign, self.job.goal.target
        for key, run in self.runs.items():
            points = run.measurement.trained_curve
            values = sign * np.array([p.value for p in points], dtype=float)
            states[key] = RunState(
                configuration=run.configuration,
                index=len(evidence),
                samples=run.measurement.samples,
                training_seconds=run.measurement.training_seconds,
                samples_to_target=run.samples_to_target,
                seconds_to_target=run.seconds_to_target,
                ended=run.has_ended or run.turned_back is not None,
                # Steps on real nodes, or of described ranks, are observations of the model of seconds only.
                is_timed=self.cluster.at_hand is None,
            )
            evidence.append(
                RunEvidence(
                    configuration=run.configuration,
                    samples=np.array([p.samples for p in points], dtype=float),
                    progress=progress_of(values, sign * (self.start_value or 0.0), sign * target),
                    samples_to_target=run.samples_to_target,
                    diverged=run.probe.outcome is Outcome.DIVERGED,
                    # A script that ends by itself does not show that longer training is in vain.
                    ended=run.has_ended and not (self.terms.ends_itself and run.ended_by_itself),
                    turned_back=run.turned_back is not None,
                    emulated=self.cluster.emulates(run.configuration),
                    noise=run.measurement.noise,
                )
            )
        return evidence, states


def read_state(
    job: Job,
    cluster: Cluster,
    probes: Sequence[ProbeRecord],
    epoch_samples: int,
    capacity: Capacity | None = None,
    cache: RunCache | None = None,
) -> SearchState:
    """Derives the state of a search from its probes.

    Args:
        job: The job.
        cluster: What it trains on.
        probes: Its probes.
        epoch_samples: Size of the training set.
        capacity: Capacity; one slot, and no slice in flight, if absent.
        cache: Of the same search, to read it again after more slices; the state is the same without it.
    """
    cache = cache or RunCache(job)
    runs: dict[Configuration, Run] = {}
    starts: list[float] = []
    seconds = dollars = 0.0
    for probe in probes:
        for measured in probe.slices:
            seconds += measured.charged_seconds
            dollars += measured.charged_dollars
            starts.extend(point.value for point in measured.curve if point.samples == 0)
        run = cache.run(probe)
        if run is None:
            continue
        key = run_key(job, probe.configuration)
        known = runs.get(key)
        if known is None or run.measurement.samples >= known.measurement.samples:
            runs[key] = run
    firsts = [point.value for run in runs.values() for point in run.measurement.finite_curve[:1]]
    return SearchState(
        job=job,
        cluster=cluster,
        space=_space(job, cluster, probes),
        probes=tuple(probes),
        runs=runs,
        start_value=float(np.median(starts)) if starts else guessed_start(job, firsts),
        epoch_samples=epoch_samples,
        spent=Charge(seconds=seconds, dollars=dollars),
        schedule=score_schedule(job, [m for p in probes for m in p.slices]),
        capacity=capacity or Capacity(),
    )


def _space(job: Job, cluster: Cluster, probes: Sequence[ProbeRecord]) -> SearchSpace:
    """The job's space, less what was seen to run out of memory."""
    too_large = [
        -(-probe.configuration.batch_size // cluster.num_ranks(probe.configuration.nodes))
        for probe in probes
        if probe.outcome is Outcome.OUT_OF_MEMORY
    ]
    if not too_large:
        return job.search_space()
    return job.search_space().with_condition(
        RanksWithin(devices_per_node=cluster.devices_per_node, too_large_per_rank=min(too_large))
    )


def _common_end(seen: Sequence[tuple[int, bool]]) -> int | None:
    """Where all runs end that ended by themselves; None if they do not end alike, or one went further.

    Args:
        seen: How far each run went, and whether it ended by itself there.
    """
    ends = [far for far, ended in seen if ended]
    last = max((far for far, _ in seen), default=0)
    return last if len(ends) > 1 and min(ends) >= _ALIKE * last else None


def run_of(state: SearchState, configuration: Configuration) -> Run | None:
    """The run that was started with a configuration's statistics, on any nodes."""
    return state.runs.get(run_key(state.job, configuration))
