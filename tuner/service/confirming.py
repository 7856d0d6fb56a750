"""The option `--confirm`: trains the recommendation and the baseline with new seeds, and compares them.

The baseline is the configuration that the user trains with at present; messages call it the present settings.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from search_spaces import Configuration
from tuner.advice.confirmation import compare_trainings, settings_of
from tuner.advice.no_answer import last_fault
from tuner.domain.cluster import charge
from tuner.domain.confirmation import Confirmation, ConfirmedTraining
from tuner.domain.errors import JobError
from tuner.domain.format import format_configuration, format_dollars, format_seconds
from tuner.domain.ledger import Ledger, StudyRecord
from tuner.domain.measurement import Outcome
from tuner.domain.recommendation import Recommendation
from tuner.job import Job, takes_seed
from tuner.probes import Prober
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.search.events import Listener, SearchEvent
from tuner.search.policy import StopKind
from tuner.search.state import SearchState, read_state, run_of
from tuner.search.train_policy import VERIFY_FACTOR, TrainPolicy, slice_seconds
from tuner.service.opening import OpenedJob, StudyStore, checked_epoch_samples
from tuner.service.training import job_of_one, run_training

#: Difference between two consecutive seeds. Scripts often add the rank to the seed, so seeds that differ by 1
#: would give different ranks the same random numbers.
SEED_STEP = 1000


@dataclass(frozen=True, kw_only=True)
class _Pair:
    """The recommendation and the baseline of a job, which are compared, and the database of their trainings.

    Args:
        opened: The job.
        ledger: The database of Paceline's studies. Each training of the comparison is a study of its own in
            this database.
        study_name: Name of the study that made the recommendation.
        recommended: The recommended configuration.
        present: The baseline of the job.
    """

    opened: OpenedJob
    ledger: Ledger
    study_name: str
    recommended: Configuration
    present: Configuration

    def seeded(self, number: int) -> OpenedJob:
        """Returns a copy of the job with a new seed, the seed of the search plus `number * SEED_STEP`."""
        seed = self.opened.job.seed + SEED_STEP * number
        return replace(self.opened, job=self.opened.job.model_copy(update={"seed": seed}))

    def job(self, number: int, configuration: Configuration) -> Job:
        """Returns the job that trains only one configuration, with the new seed that has this number."""
        return job_of_one(self.seeded(number), configuration)

    def fingerprint(self, number: int, configuration: Configuration) -> str:
        """Returns the fingerprint of one training.

        The fingerprint depends on both configurations, so a training is never used for another comparison.
        """
        parts = [
            self.opened.fingerprint,
            self.study_name,
            self.recommended.key,
            self.present.key,
            configuration.key,
            str(self.seeded(number).job.seed),
        ]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]

    @cached_property
    def studies(self) -> dict[str, StudyRecord]:
        """Maps the fingerprint of each stored training of this comparison to its Paceline study.

        A fingerprint is a digest of everything that the training depends on.
        """
        name = _study_name(self.opened)
        return {s.fingerprint: s for s in self.ledger.studies() if s.job_name == name}

    def state(self, number: int, configuration: Configuration) -> SearchState | None:
        """Reads the search state of one training; None if the training was never started."""
        study = self.studies.get(self.fingerprint(number, configuration))
        if study is None:
            return None
        # No prediction is made from this state, so the size of the training set does not matter.
        probes = self.ledger.probes(study.study_id)
        return read_state(self.job(number, configuration), self.opened.cluster, probes, NEUTRAL_EPOCH_SAMPLES)

    def started(self) -> Iterator[tuple[Configuration, SearchState]]:
        """Yields the configuration and the state of each training that was started."""
        for number in itertools.count(1):
            states = [(c, self.state(number, c)) for c in (self.recommended, self.present)]
            found = [(c, state) for c, state in states if state is not None]
            if not found:
                return
            yield from found

    def is_over(self, number: int, configuration: Configuration) -> bool:
        """Whether one training has ended and cannot be resumed."""
        state = self.state(number, configuration)
        return state is not None and _training(state, configuration) is not None


def require_confirmable(opened: OpenedJob) -> None:
    """Checks that a job can be confirmed.

    Raises:
        JobError: The job replays a recording, has no [baseline], or cannot run its baseline.
    """
    if opened.job.recording() is not None:
        raise JobError(
            f"{opened.path}: --confirm trains with new seeds, but a recording has only one run of each "
            "configuration. Use --confirm with a job that trains"
        )
    present = opened.job.baseline_configuration()
    if present is None:
        raise JobError(
            f"{opened.path}: --confirm compares the recommendation with your present settings, but the "
            "section [baseline] is missing. Add it with batch_size and learning_rate"
        )
    job_of_one(opened, present)


def confirm(
    opened: OpenedJob,
    store: StudyStore,
    state: SearchState,
    recommendation: Recommendation,
    *,
    num_seeds: int,
    folder: Path,
    listen: Listener,
    make_prober: Callable[[OpenedJob], Prober],
) -> None:
    """Trains the recommendation and the baseline alternately, once with each new seed.

    - Each training is stored as a Paceline study of the job name `NAME.confirm`, which the search and its
      models ignore.
    - Trainings that have ended in an earlier call are not repeated, and an interrupted training is resumed.
    - The first failed training ends the comparison. A second call continues the comparison.

    Args:
        opened: The job.
        store: The database of studies.
        state: State of the search, from which the cost of the trainings is predicted.
        recommendation: The recommendation to confirm.
        num_seeds: Number of new seeds.
        folder: The output folder, which exists.
        listen: Function that is called with progress events and warnings.
        make_prober: Function that creates a prober for each training, so every training starts new processes.

    Raises:
        StorageError: Another process works on a training, or the database or the folder cannot be read or
            written.
    """
    pair = _pair(opened, store.ledger, recommendation)
    if pair is None:
        words = "--confirm: the recommendation is the present settings, so there is nothing to compare"
        listen(SearchEvent(kind="warning", text=words))
        return
    numbers = range(1, num_seeds + 1)
    turns = [(number, c) for number in numbers for c in (pair.recommended, pair.present)]
    left = [turn for turn in turns if not pair.is_over(*turn)]
    expected = dict(zip((pair.recommended, pair.present), _expected_seconds(recommendation), strict=True))
    listen(SearchEvent(kind="plan", text=_plan_words(state, expected, left, num_seeds)))
    if not takes_seed(opened.job, opened.folder):
        listen(SearchEvent(kind="warning", text=f"--confirm: {NO_SEED}"))
    if not left:
        return
    listen = _without_repeats(listen, state)
    epoch_samples = checked_epoch_samples(opened)
    for place, (number, configuration) in enumerate(left, start=1):
        seeded = pair.seeded(number)
        name = "recommendation" if configuration == pair.recommended else "present settings"
        words = (
            f"confirmation {place} of {len(left)}: {name}, seed {seeded.job.seed}, "
            f"{format_configuration(configuration)}"
        )
        listen(SearchEvent(kind="plan", text=words))
        fault = _train(
            pair,
            store,
            number,
            configuration,
            expected_seconds=expected[configuration],
            folder=folder,
            epoch_samples=epoch_samples,
            listen=listen,
            make_prober=make_prober,
        )
        if fault is not None:
            listen(SearchEvent(kind="warning", text=f"--confirm ended early: {fault}"))
            return


def _train(
    pair: _Pair,
    store: StudyStore,
    number: int,
    configuration: Configuration,
    *,
    expected_seconds: float,
    folder: Path,
    epoch_samples: int,
    listen: Listener,
    make_prober: Callable[[OpenedJob], Prober],
) -> str | None:
    """Trains one configuration with one seed until it reaches the target or its time limit.

    Returns:
        A description of the failure that ended the training; None if the training did not fail.
    """
    job = pair.job(number, configuration)
    study = store.ledger.open_study(
        _study_name(pair.opened), pair.fingerprint(number, configuration), job.published()
    )
    ended = run_training(
        pair.seeded(number),
        store,
        study,
        job,
        TrainPolicy(
            configuration,
            expected_seconds=expected_seconds,
            limit_seconds=VERIFY_FACTOR * expected_seconds,
        ),
        folder=folder,
        epoch_samples=epoch_samples,
        listen=listen,
        make_prober=make_prober,
    )
    if ended.stop.kind is StopKind.INTERRUPTED:
        return ended.stop.reason
    if ended.stop.kind is StopKind.FAULTS:
        return f"{ended.stop.reason}. {last_fault(ended.state)}"
    run = run_of(ended.state, configuration)
    if run is not None and run.is_open:
        # Whether the target is reached depends on the time limit, so the training must not resume with a
        # different limit.
        store.ledger.end_probe(run.probe.probe_id, Outcome.STOPPED, ended.stop.reason)
    return None


#: Warning for a command without the placeholder {seed}.
NO_SEED = (
    "the command has no {seed}, so every training uses the script's own seed. If that seed is fixed, the "
    "measured spread is that of the machine alone"
)


def stored_confirmation(
    ledger: Ledger, opened: OpenedJob, recommendation: Recommendation
) -> Confirmation | None:
    """Compares a recommendation with the baseline by all stored trainings of `--confirm`.

    Args:
        ledger: The database of studies.
        opened: The job.
        recommendation: The recommendation that the trainings confirm.

    Returns:
        The comparison; None if no training was started.
    """
    pair = _pair(opened, ledger, recommendation)
    if pair is None or opened.job.recording() is not None:
        return None
    found: dict[Configuration, list[ConfirmedTraining]] = {pair.recommended: [], pair.present: []}
    started = list(pair.started())
    for configuration, state in started:
        training = _training(state, configuration)
        if training is not None:
            found[configuration].append(training)
    if not started:
        return None
    price = opened.cluster.dollars_per_second
    return compare_trainings(
        settings_of(pair.recommended, found[pair.recommended]),
        settings_of(pair.present, found[pair.present]),
        price_ratio=price(pair.present) / price(pair.recommended) if opened.cluster.has_prices else None,
        uses_seed=takes_seed(opened.job, opened.folder),
        num_unfinished=len(started) - sum(len(trainings) for trainings in found.values()),
        seconds=sum(state.spent.seconds for _, state in started),
        dollars=sum(state.spent.dollars for _, state in started),
    )


def confirmation_states(
    ledger: Ledger, opened: OpenedJob, recommendation: Recommendation
) -> list[SearchState]:
    """Returns the state of each training that was started to confirm a recommendation."""
    pair = _pair(opened, ledger, recommendation)
    return [] if pair is None else [state for _, state in pair.started()]


def _pair(opened: OpenedJob, ledger: Ledger, recommendation: Recommendation) -> _Pair | None:
    """Returns the two configurations to compare; None if they are equal, or if the job has no baseline."""
    present, choice = opened.job.baseline_configuration(), recommendation.choice.configuration
    if present is None or present == choice:
        return None
    return _Pair(
        opened=opened,
        ledger=ledger,
        study_name=recommendation.study_name,
        recommended=choice,
        present=present,
    )


def _study_name(opened: OpenedJob) -> str:
    return f"{opened.job.name}.confirm"


def _training(state: SearchState, configuration: Configuration) -> ConfirmedTraining | None:
    """Returns the result of a training; None while the training can still be resumed."""
    run = run_of(state, configuration)
    if run is None:
        outcomes = [probe.outcome for probe in state.probes]
        if Outcome.OUT_OF_MEMORY not in outcomes:
            return None
        return ConfirmedTraining(
            seed=state.job.seed, reached=False, outcome=Outcome.OUT_OF_MEMORY.value, training_seconds=0.0
        )
    if run.can_continue:
        return None
    return ConfirmedTraining(
        seed=state.job.seed,
        reached=run.arrived,
        outcome=(Outcome.REACHED if run.arrived else run.probe.outcome).value,
        training_seconds=run.seen_seconds if run.seconds_to_target is None else run.seconds_to_target,
    )


def _expected_seconds(recommendation: Recommendation) -> tuple[float, float]:
    """Returns the expected training seconds of the recommendation and of the baseline.

    If the baseline may never reach the target, its time is the larger of two numbers: the time of the
    recommendation, and the seconds for which the search has already trained the baseline.
    """
    ours, baseline = recommendation.choice.seconds.median, recommendation.baseline
    if baseline is None:
        return ours, ours
    theirs = baseline.seconds.median
    return ours, theirs if math.isfinite(theirs) else max(ours, baseline.seconds_observed)


def _without_repeats(listen: Listener, state: SearchState) -> Listener:
    """Returns a listener that ignores warnings that it or the search has already shown."""
    said = {remark for measurement in state.slices for remark in measurement.remarks}

    def hear(event: SearchEvent) -> None:
        if event.kind == "warning" and event.text in said:
            return
        if event.kind == "warning":
            said.add(event.text)
        listen(event)

    return hear


def _plan_words(
    state: SearchState,
    expected: dict[Configuration, float],
    left: list[tuple[int, Configuration]],
    num_seeds: int,
) -> str:
    """Returns a sentence on the planned trainings, their expected cost and their time limit."""
    words = f"--confirm {num_seeds}: trains the recommendation and the present settings alternately, with "
    words += "the same "
    words += "new seed" if num_seeds == 1 else f"{num_seeds} new seeds"
    if not left:
        return f"{words}; all {2 * num_seeds} trainings are stored"
    seconds, most = (
        [_charged_seconds(state, factor * expected[c]) for _, c in left] for factor in (1.0, VERIFY_FACTOR)
    )
    price = ""
    if state.cluster.has_prices:
        dollars = [charge(s, c, state.cluster).dollars for s, (_, c) in zip(seconds, left, strict=True)]
        price = f" and {format_dollars(sum(dollars))}"
    return (
        f"{words}; {len(left)} of {2 * num_seeds} trainings are left, which take about "
        f"{format_seconds(sum(seconds))}{price}, at most {format_seconds(sum(most))}: a training ends after "
        f"{VERIFY_FACTOR:g} times its expected time; [budget] does not apply"
    )


def _charged_seconds(state: SearchState, training_seconds: float) -> float:
    """Predicts the seconds that a training is charged for, with start-up, evaluation and checkpoints."""
    slices = (
        math.ceil(training_seconds / slice_seconds(state, training_seconds)) if state.terms.resumes else 1
    )
    return training_seconds * state.overhead + slices * state.startup_seconds
