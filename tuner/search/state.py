"""State of a search: everything that a decision depends on, computed from the stored measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from search_spaces import Configuration, RanksWithin, SearchSpace
from tuner.analytic.predictor import RunState
from tuner.analytic.rate_edge import RunEvidence
from tuner.domain.cluster import Charge, Cluster
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.probes.score_schedule import ScoreSchedule, score_schedule
from tuner.probes.terms import UNKNOWN_STARTUP_SECONDS, ProbeTerms, probe_terms
from tuner.search.capacity import Capacity
from tuner.search.runs import Run, RunCache, is_interrupted, paid_slices, run_key
from tuner.search.start_value import guessed_start, progress_of
from tuner.search.timings import TimingKey, timing_key

#: Runs that end by themselves count as equally long if the shortest of them has at least this share of the
#: length of the longest run.
_ALIKE = 0.95
#: Seconds between two slices, in which models are fitted, the next slice is chosen and results are stored.
#: They are part of the elapsed time, but are not charged for any slice.
_DECIDING_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class SearchState:
    """State of a search: what was measured so far, and what it cost.

    Args:
        job: The job.
        cluster: The cluster on which the job trains.
        space: The search space, without batch sizes per rank that are too large for the memory, as a probe
            has shown.
        probes: All probes (trial trainings), oldest first.
        runs: Maps the key of a learning curve (`run_key`) to the longest run that measured it.
        start_value: Metric of the untrained model, measured or estimated; None before the first score.
        epoch_samples: Number of samples of the training set.
        spent: Seconds and dollars charged for all ended slices.
        schedule: Predicts at which numbers of samples the user's script evaluates the model.
        capacity: Limits on the number of concurrent slices (parts of trainings), and the slices that are
            running.
        past_faults: IDs of probes that failed before this process started. They do not count as faults,
            because the user may have removed their cause.
        left_out: Keys of the learning curves (`run_key`) that were measured, but are not in `runs`, because
            the study has more runs than the models are fitted to (see `run_subset.modelled`).
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
    left_out: frozenset[Configuration] = frozenset()

    @property
    def elapsed_seconds(self) -> float:
        """Seconds during which at least one slice was running; time of overlapping slices counts once."""
        shared = sum(measurement.shared_seconds for measurement in self.slices)
        return self.spent.seconds - shared + self.capacity.elapsed_seconds

    def dollars(self, *, to_end: bool = False) -> float:
        """Returns the price of all slices so far, those that have ended and those that are running.

        Args:
            to_end: Whether to add the dollars that a running slice will have cost at its expected end, rather
                than its dollars so far.
        """
        price = self.cluster.dollars_per_second
        return self.spent.dollars + sum(
            a.held_seconds(to_end=to_end) * price(a.configuration) for a in self.capacity.under_way
        )

    def node_seconds(self, *, to_end: bool = False) -> float:
        """Returns the node seconds of all slices: seconds of a slice times its number of nodes.

        Args:
            to_end: Whether to add the seconds that a running slice will have used at its expected end, rather
                than its seconds so far.
        """
        charged = sum(m.charged_seconds * self.cluster.nodes_held(m.configuration) for m in self.slices)
        return charged + sum(a.held_seconds(to_end=to_end) * a.num_nodes for a in self.capacity.under_way)

    @property
    def keys_under_way(self) -> set[Configuration]:
        """Keys (`run_key`) of the learning curves that running slices measure."""
        return {
            run_key(self.job, active.configuration)
            for active in self.capacity.under_way
            if active.purpose is not Purpose.TIMING
        }

    def fits(self, configuration: Configuration) -> bool:
        """Whether the limits on slices and nodes allow training of a configuration to start now."""
        return self.capacity.fits(self.cluster.nodes_held(configuration))

    @property
    def further_trainings(self) -> int:
        """Number of trainings after the search that will use the recommended configuration.

        For emulated ranks, it is the number of trainings in the goal. For real ranks, it is one less, because
        the search itself trains one model to the target.
        """
        trainings = self.job.goal.trainings
        return trainings - 1 if self.terms.is_training else trainings

    @cached_property
    def slices(self) -> tuple[Measurement, ...]:
        """The measurement of every slice (uninterrupted part of a training) of the search."""
        return tuple(measurement for probe in self.probes for measurement in probe.slices)

    @cached_property
    def terms(self) -> ProbeTerms:
        """Rules of the job, such as whether a run resumes without a start-up, and when runs are scored."""
        return probe_terms(self.job, self.cluster, self.slices, self.epoch_samples)

    def next_score_samples(self, configuration: Configuration, samples: int) -> int | None:
        """Returns how many samples a run will have processed at its next evaluation.

        Args:
            configuration: Configuration of the run.
            samples: Number of samples that the run has processed.

        Returns:
            The number; None if neither the job nor the evaluations so far determine it.
        """
        if self.schedule.has_scores:
            return self.schedule.next_after(configuration, samples) or samples + 1
        return self.terms.next_score_samples(samples)

    @cached_property
    def tried(self) -> tuple[ProbeRecord, ...]:
        """The probes that have really run or are running, oldest first.

        A probe that was interrupted at its start is missing, so that the search continues as if nothing had
        happened, and chooses it again.
        """
        return tuple(p for p in self.probes if p.was_tried or p.probe_id in self.capacity.probe_ids)

    @cached_property
    def given_up(self) -> frozenset[Configuration]:
        """Configurations that are not tried again, because they made their last training fail."""
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
        """Whether any configuration that neither failed nor diverged has been evaluated after training."""
        given_up, broken = self.given_up, (Outcome.DIVERGED, Outcome.OUT_OF_MEMORY)
        return any(
            run.measurement.trained_curve
            and run.probe.outcome not in broken
            and run.configuration not in given_up
            for run in self.runs.values()
        )

    def script_ends(self, configurations: Sequence[Configuration]) -> list[float]:
        """Returns the number of samples after which the user's script ends, for each configuration.

        The number is known if at least two runs ended by themselves after the same number of samples or
        steps, and no run trained longer.

        Args:
            configurations: The configurations.

        Returns:
            The number of samples for each configuration; infinite if unknown.
        """
        seen = [(run.measurement, run.ended_by_itself) for run in self.runs.values()]
        samples = _common_end([(m.samples, ended) for m, ended in seen])
        steps = _common_end([(m.step, ended) for m, ended in seen])
        if not self.terms.ends_itself or (samples is None and steps is None):
            return [math.inf] * len(configurations)
        # If the end is known both in samples and in steps, use the later one.
        return [max(samples or 0, (steps or 0) * c.batch_size) for c in configurations]

    @property
    def num_faults(self) -> int:
        """Number of probes (trial trainings) that failed."""
        return sum(probe.outcome.is_fault for probe in self.probes)

    @cached_property
    def startups(self) -> list[float]:
        """Measured start-up times of all slices that had a start-up, in seconds."""
        return [m.startup_seconds for m in self.slices if m.startup_seconds > 0]

    @cached_property
    def startup_seconds(self) -> float:
        """Expected seconds from the start of another slice to its first step."""
        return self.terms.later_startup(self.startups)

    @cached_property
    def is_scored(self) -> bool:
        """Whether the evaluations so far allow a forecast of the number of samples to target.

        For recorded runs, any evaluation is enough. Otherwise, at least one run must have reached the target
        or improved clearly since its first score, because many runs do not improve for a long time at first.
        """
        if not self.terms.pays_to_resume:
            return any(run.measurement.trained_curve for run in self.runs.values())
        return any(run.arrived or run.rise_samples is not None for run in self.runs.values())

    @cached_property
    def rise_samples(self) -> float:
        """Median number of samples after which runs first improved clearly; 0 if no run has improved."""
        found = [run.rise_samples for run in self.runs.values() if run.rise_samples is not None]
        return float(np.median(found)) if found else 0.0

    @cached_property
    def overhead(self) -> float:
        """Charged seconds per training second, at least 1.

        The charged seconds include evaluation and checkpoints, but neither start-up nor repeated training.
        """
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
        """Expected seconds that a slice costs besides training and evaluation.

        They are the seconds for start-up, for checkpoints, and for the decision before the slice.
        """
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
        """Expected seconds besides training for a slice that uses more ranks than all earlier slices.

        The additional ranks must start and import all modules. So this is based on the longest measured
        start-up, not on the start-up of slices that reuse ranks.
        """
        first, *later = self.startups or [0.0]
        longest = max([min(first, UNKNOWN_STARTUP_SECONDS), *later])
        return max(longest + _DECIDING_SECONDS, self.slice_seconds)

    @cached_property
    def parameter_bytes(self) -> int:
        """Size of the model's parameters in bytes; 0 if no slice reported it."""
        return max((m.parameter_bytes for m in self.slices), default=0)

    def timed(self) -> set[TimingKey]:
        """Returns the keys (`timing_key`) of the step times that were measured."""
        configurations = {m.configuration for m in self.slices if m.ranks}
        return {timing_key(configuration, self.cluster) for configuration in configurations}

    def failed_timings(self) -> set[TimingKey]:
        """Returns the keys (`timing_key`) of step times that could not be measured when it was tried."""
        return {
            timing_key(p.configuration, self.cluster)
            for p in self.probes
            if p.purpose is Purpose.TIMING and not p.outcome.can_continue
        } - self.timed()

    def evidence(self) -> tuple[list[RunEvidence], dict[Configuration, RunState]]:
        """Returns the measurements of all runs, in the form to which the models are fitted.

        Returns:
            The learning curve of each run, and a map from the key (`run_key`) of each run to its progress.
        """
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
                # On a cluster that is partly emulated, training seconds may be computed, not measured.
                is_timed=self.cluster.at_hand is None,
            )
            evidence.append(
                RunEvidence(
                    configuration=run.configuration,
                    samples=np.array([p.samples for p in points], dtype=float),
                    progress=progress_of(values, sign * (self.start_value or 0.0), sign * target),
                    samples_to_target=run.samples_to_target,
                    diverged=run.probe.outcome is Outcome.DIVERGED,
                    # A script that ended by itself might reach the target if it trained longer.
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
    """Computes the state of a search from its stored trainings.

    Args:
        job: The job.
        cluster: The cluster on which the job trains.
        probes: All probes (trial trainings) of the study, oldest first.
        epoch_samples: Number of samples of the training set.
        capacity: Limits on concurrent slices, and the running slices; if None, one slice at a time, and no
            running slice.
        cache: Cache from earlier calls for the same search. It saves time and does not change the result.
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
    """Returns the search space of the job without batch sizes per rank that are too large for the memory.

    They are at least as large as one with which a training ran out of memory.
    """
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
    """Returns the number of samples (or steps) after which all runs seem to end by themselves.

    Args:
        seen: Length of each run (in samples or in steps), and whether the run ended by itself.

    Returns:
        The length of the longest run. None if fewer than two runs ended by themselves, or if one of these
            runs is shorter than `_ALIKE` times the longest run.
    """
    ends = [far for far, ended in seen if ended]
    last = max((far for far, _ in seen), default=0)
    return last if len(ends) > 1 and min(ends) >= _ALIKE * last else None


def run_of(state: SearchState, configuration: Configuration) -> Run | None:
    """Returns the run that measured the learning curve of a configuration; None if there is none.

    It may be the run of another configuration with the same learning curve (`run_key`).
    """
    return state.runs.get(run_key(state.job, configuration))
