"""The use case `check`: runs one short probe of a job, and shows its reported values and its cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from search_spaces import Configuration
from tuner.domain.errors import ProbeError
from tuner.domain.format import format_count, format_dollars, format_seconds
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job.command_section import MetricsSection
from tuner.probes import ProbeHandle, Prober, Until
from tuner.probes.commands.heard import Heard
from tuner.probes.commands.prober import CommandProber
from tuner.probes.score_schedule import ScoreSchedule, score_schedule
from tuner.service.launchers import job_prober, passing_folder
from tuner.service.opening import OpenedJob, checked_epoch_samples
from tuner.service.plan import saving_seconds, worst_dollars

#: A check waits for a score at most this number of seconds after the first output of the script, by default.
MOST_SECONDS = 60.0
#: While the script is in its first epoch, the check waits longer, until the script has processed this
#: multiple of the samples of an epoch.
_EPOCH_SLACK = 1.15
_SAY_SECONDS, _POLL_SECONDS = 10.0, 0.05
#: Number of optimizer steps in the probe of a Workload.
_WORKLOAD_STEPS = 12
#: If the script is started a second time and its first report comes at fewer samples than this multiple of
#: the samples at the first report of the first start, the script did not resume.
_NEAR_START = 1.5
#: The check waits this many times longer for a script that prints nothing, because the script may still be
#: starting.
_SILENT = 2.0


@dataclass(kw_only=True)
class CommandCheck:
    """The result of a check of a command.

    Args:
        measurement: The measurement of the run: curve, step times, samples processed, errors.
        heard: The lines of output that were read as reports, and the lines that look like scores but were not
            read.
        schedule: Predicts the number of samples at which the script reports its next score.
        resume: Whether the script resumed from its checkpoint, as a sentence for the user.
    """

    measurement: Measurement
    heard: Heard = field(default_factory=Heard)
    schedule: ScoreSchedule = field(default_factory=ScoreSchedule)
    resume: str = "not tried (check --resume tries it)"

    @property
    def first_score(self) -> CurvePoint | None:
        """The first score of the trained model, not of the untrained model; None if there is none."""
        return next(iter(self.measurement.trained_curve), None)


def check_command(
    opened: OpenedJob,
    *,
    resume: bool = False,
    wait_seconds: float = MOST_SECONDS,
    say: Callable[[str], object] = str,
    make_prober: Callable[[OpenedJob], Prober] = job_prober,
) -> CommandCheck:
    """Runs the command with one configuration until the script reports its first score.

    The configuration is the baseline if the cluster can run it, else the smallest configuration of the space.

    Args:
        opened: A job with a command.
        resume: Whether to start the script a second time, to test that it resumes from its checkpoint.
        wait_seconds: Longest time from the first output of the script to its first score, in seconds. If the
            number of samples per epoch is known, the check waits at least for the end of the first epoch.
        say: Function that is called with a line of text on the progress every ten seconds.
        make_prober: Function that creates the prober, which this function closes.

    Raises:
        ProbeError: The command failed. The message contains its last output.
    """
    checked_epoch_samples(opened)
    configuration = tiny_configuration(opened)
    with passing_folder(opened, "check") as folder:
        prober = make_prober(opened)
        assert isinstance(prober, CommandProber)
        try:
            # The prober stores facts about the script beside the folder of the probe.
            probe = folder / "probe"
            handle = prober.start(configuration, Purpose.STATISTICS, Until(samples=1), probe)
            measurement = _first_score(opened, prober, handle, say, wait_seconds)
            _raise_failure(measurement)
            check = CommandCheck(
                measurement=measurement,
                heard=prober.heard(handle),
                schedule=score_schedule(opened.job, [measurement]),
            )
            if resume:
                check.resume = _tried_resume(opened, prober, measurement, handle, say, wait_seconds)
        finally:
            prober.close()
    return check


def _first_score(
    opened: OpenedJob,
    prober: CommandProber,
    handle: ProbeHandle,
    say: Callable[[str], object],
    wait_seconds: float,
) -> Measurement:
    """Waits until a probe ends, and returns its measurement. Cancels the probe if it has no score in time."""
    size = opened.job.command.epoch_samples
    said_at = started_at = prober.now()
    while True:
        measurement = prober.poll(handle)
        if measurement.outcome is not Outcome.RUNNING:
            return measurement
        heard, now = prober.heard(handle), prober.now()
        if heard.first_output_at is None and now - started_at > _SILENT * wait_seconds:
            prober.cancel(handle)
            return prober.poll(handle)
        if now - said_at >= _SAY_SECONDS:
            said_at = now
            say(_progress(measurement, heard, size))
        if heard.first_output_at is not None:
            passed = now - heard.first_output_at
            in_first_epoch = (
                size is not None and 0 < measurement.samples < _EPOCH_SLACK * size and not heard.num_scores
            )
            if passed > wait_seconds and not in_first_epoch:
                prober.cancel(handle)
                return prober.poll(handle)
        time.sleep(_POLL_SECONDS)


def _progress(measurement: Measurement, heard: Heard, size: int | None) -> str:
    if measurement.waiting:
        return f"waiting: {measurement.waiting}"
    if not heard.num_lines and not heard.printed and heard.first_output_at is None:
        return "running; nothing was printed or reported yet"
    if not heard.num_lines:
        seen = "; ".join(heard.unmatched)
        likely = f"; these look like scores and do not match: {seen}" if seen else ""
        return f"running; no line of progress was read yet{likely}"
    where = f"{format_count(measurement.samples)} samples"
    if heard.num_scores:
        return f"running; {heard.num_scores} score{'' if heard.num_scores == 1 else 's'} after {where}"
    if size is not None and measurement.samples and measurement.training_seconds > 0:
        left = (size - measurement.samples) * measurement.training_seconds / measurement.samples
        where += f"; the first epoch ends in about {format_seconds(max(left, 0.0))}"
    return f"running; no score yet after {where}"


def _raise_failure(measurement: Measurement, *, with_last_line: bool = False) -> None:
    if not measurement.outcome.is_fault and measurement.outcome is not Outcome.OUT_OF_MEMORY:
        return
    error = (measurement.error or "").strip() or "no error was reported"
    if with_last_line:
        error = f"{error.splitlines()[-1]}\n{error}"
    noticed = "".join(f"\nnoticed: {remark}" for remark in measurement.remarks)
    raise ProbeError(
        f"the probe of {measurement.configuration} ended as {measurement.outcome}: {error}{noticed}"
    )


def _tried_resume(
    opened: OpenedJob,
    prober: CommandProber,
    before: Measurement,
    handle: ProbeHandle,
    say: Callable[[str], object],
    wait_seconds: float,
) -> str:
    """Starts the script again from its checkpoint, and describes whether the script resumed.

    Returns:
        A sentence that starts with `yes`, `no` or `not tried`.
    """
    if not opened.job.can_resume:
        return "no: workload.resume is not set, so each slice trains from the beginning again"
    if before.outcome is not Outcome.PAUSED:
        return f"not tried: the run ended as {before.outcome.value}"
    if before.checkpoint is None:
        return "no: the script saved nothing at {checkpoint} when it was asked to stop, within workload.grace"
    until = Until(samples=before.samples + 1)
    first_before = prober.heard(handle).first_samples or 0
    again = prober.start(before.configuration, Purpose.STATISTICS, until, handle.folder)
    after = _first_score(opened, prober, again, say, wait_seconds)
    if after.outcome.is_fault:
        lines = (after.error or "").strip().splitlines() or ["no error was reported"]
        return f"no: {lines[-1]}"
    # If the checkpoint is older than the last report, the script repeats some training.
    first_after = prober.heard(again).first_samples
    # A script that starts over makes its first report after about as many samples as the first run did.
    near_start = max(_NEAR_START * first_before, before.configuration.batch_size)
    began_anew = after.repeated_seconds > 0 and (first_after is None or first_after <= near_start)
    if began_anew or after.samples <= before.samples:
        reasons = "".join(f"; {remark}" for remark in after.remarks)
        return f"no: the script started over{reasons}"
    if after.repeated_seconds > 0:
        repeated = format_seconds(after.repeated_seconds)
        return f"yes: it repeated {repeated} of training, since its checkpoint was older than its last report"
    if not after.curve:
        return (
            f"yes: it resumed and went from {before.samples} to {after.samples} samples, without a score yet"
        )
    first = after.curve[0]
    last = before.curve[-1].value if before.curve else float("nan")
    return (
        f"yes: saved at {before.samples} samples; the first score after the resume is {first.value:g} at "
        f"{first.samples} samples, the last score before it was {last:g}"
    )


def command_rows(opened: OpenedJob, check: CommandCheck) -> list[tuple[str, Any]]:
    """Returns the result of a check of a command as rows of name and value."""
    job, measurement, heard = opened.job, check.measurement, check.heard
    section, step, score = job.command, measurement.step_seconds, check.first_score
    rows: list[tuple[str, Any]] = [
        ("job", job.name),
        ("probed", str(measurement.configuration)),
        # Without a line of progress, the end of start-up is unknown.
        ("start-up seconds", round(measurement.startup_seconds, 3) if heard.num_lines else None),
    ]
    rows += [("read", f"{text}  ->  {fields}") for text, fields in heard.matched.items()]
    if score is None or not heard.num_scores:
        rows += [("looks like a score, but no pattern matches it", example) for example in heard.unmatched]
    if step is not None:
        batch = measurement.configuration.batch_size
        rows += [
            ("step milliseconds", round(1000 * step.mean, 3)),
            ("samples per second", round(batch / step.mean, 1) if step.mean > 0 else None),
        ]
        if section.epoch_samples is not None:
            rows.append(("seconds per epoch", round(section.epoch_samples / batch * step.mean, 3)))
    rows += [
        ("scores", len(measurement.trained_curve)),
        (f"last {job.goal.metric}", measurement.curve[-1].value if measurement.curve else None),
        ("samples processed", measurement.samples),
        ("first score", _first_score_words(score)),
        ("next score", _next_score_words(check)),
        ("steps timed between scores", _known(heard, check.schedule.times_steps)),
        ("scoring reported separately", _known(heard, measurement.scoring_seconds > 0)),
        ("gradient noise", "reported" if measurement.noise else "not reported (optional)"),
        ("parameter bytes", measurement.parameter_bytes or "not stated (workload.parameter_bytes, optional)"),
        ("resume", check.resume if job.can_resume or check.resume.startswith("no:") else _NO_RESUME),
    ]
    rows += [("noticed", remark) for remark in measurement.remarks]
    return rows + _cost_rows(opened, check)


def _known(heard: Heard, is_true: bool) -> str:
    """Returns `yes` if a statement about the script is true, else `no`; `unknown` if no report was read."""
    return ("yes" if is_true else "no") if heard.num_lines else "unknown"


def without_score(check: CommandCheck, wait_seconds: float, metrics: MetricsSection) -> str:
    """Returns advice for a check that read no score of a trained model.

    Args:
        check: The result of the check.
        wait_seconds: Seconds that the check waited for the first score.
        metrics: The `[workload.metrics]` section of the job.
    """
    heard, samples = check.heard, check.measurement.samples
    longer = "`paceline check --wait 10m` waits longer"
    if heard.num_scores:
        return f"the only score so far is of the untrained model; {longer} for the next one"
    if heard.num_lines:
        return f"progress was read, up to {samples} samples, and no score within {wait_seconds:g} s; {longer}"
    if not heard.printed:
        return f"the script printed and reported nothing within {_SILENT * wait_seconds:g} s; {longer}"
    if metrics.patterns:
        pattern = " or ".join(f"'{pattern}'" for pattern in metrics.patterns)
        cause = f"workload.metrics.pattern = {pattern} is likely wrong: it matches no line that was printed"
    else:
        place = " or ".join(metrics.paths) or "the file $PACELINE_METRICS"
        cause = f"no line was read from {place} (workload.metrics.source = {metrics.source!r})"
    printed = "".join(f"\n  {line}" for line in heard.printed)
    return (
        f"no score was read within {wait_seconds:g} s: {cause}. The last lines that the script printed are:"
        f"{printed}\nCorrect [workload.metrics]; if the first score only comes later, {longer}"
    )


_NO_RESUME = (
    "no: each slice trains from the beginning again, and all its time is charged; see workload.resume"
)


def _first_score_words(score: CurvePoint | None) -> str:
    if score is None:
        return "none was read"
    return f"after {score.samples} samples, {score.training_seconds:.2f} s of training"


def _next_score_words(check: CommandCheck) -> str:
    measurement = check.measurement
    due = check.schedule.next_after(measurement.configuration, measurement.samples)
    if due is None or measurement.samples == 0:
        return "unknown"
    seconds = (due - measurement.samples) * measurement.training_seconds / measurement.samples
    return f"after {due} samples, {seconds:.2f} s of training later"


def _cost_rows(opened: OpenedJob, check: CommandCheck) -> list[tuple[str, Any]]:
    """Returns rows with the lowest and the highest cost of `paceline run` for the job."""
    budget, score = opened.job.budget, check.first_score
    rows: list[tuple[str, Any]] = []
    if score is not None:
        least = check.measurement.startup_seconds + score.training_seconds
        rows.append(("seconds at best", round(least, 1)))
        if budget.time is not None and budget.time < 3 * least:
            few = format_seconds(budget.time)
            rows.append(
                ("budget", f"{few} is too short: three runs need more time to reach their first scores")
            )
    return rows + cost_rows(opened)


def cost_rows(opened: OpenedJob) -> list[tuple[str, Any]]:
    """Returns rows with the highest cost of `paceline run` for a job, with the time for saving at the end."""
    seconds = opened.job.budget.time
    rows: list[tuple[str, Any]] = [
        (
            "seconds at worst",
            "no limit in [budget]" if seconds is None else round(seconds + saving_seconds(opened), 1),
        )
    ]
    worst = worst_dollars(opened, opened.job.search_space().candidates())
    return rows if worst is None else [*rows, ("dollars at worst", format_dollars(worst))]


def tiny_configuration(opened: OpenedJob) -> Configuration:
    """Returns the baseline if the cluster can run it, else the smallest configuration of the space."""
    space = opened.job.search_space()
    baseline = opened.job.baseline_configuration()
    if baseline is not None and space.is_runnable(baseline):
        return baseline
    return min(space.candidates(), key=lambda c: (c.nodes, c.batch_size))


def check_job(
    opened: OpenedJob, *, make_prober: Callable[[OpenedJob], Prober] = job_prober
) -> tuple[Measurement, int]:
    """Scores the untrained model, then trains one configuration for a few steps.

    The configuration is the baseline if the cluster can run it, else the smallest configuration of the space.
    If the job replays a recording, the steps are replayed from the recording.

    Args:
        opened: A job that trains a Workload or replays a recording.
        make_prober: Function that creates the prober, which this function closes.

    Returns:
        The measurement of the probe, and the number of samples in the training set.

    Raises:
        JobError: The workload cannot be built.
        ProbeError: The probe failed. The message contains the error of every rank.
    """
    epoch_samples = checked_epoch_samples(opened)
    configuration = tiny_configuration(opened)
    # The prober needs the folder until it is closed.
    with passing_folder(opened, "check") as folder:
        prober = make_prober(opened)
        try:
            handle = prober.start(configuration, Purpose.STATISTICS, Until(steps=_WORKLOAD_STEPS), folder)
            measurement = prober.poll(handle)
            while measurement.outcome is Outcome.RUNNING:
                time.sleep(0.05)
                measurement = prober.poll(handle)
        finally:
            prober.close()
    _raise_failure(measurement, with_last_line=True)
    return measurement, epoch_samples
