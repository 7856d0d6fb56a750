"""Prober that replays a recording: it returns measurements as if it trained, without training.

A recording has the learning curve and the step time of each configuration of a job.
"""

from __future__ import annotations

import itertools
import json
import math
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.cluster import Cluster, charge
from tuner.domain.errors import ProbeError, StorageError
from tuner.domain.measurement import (
    CurvePoint,
    Measurement,
    Outcome,
    Purpose,
    RankTiming,
    Spread,
    TargetCount,
)
from tuner.probes.probe_folder import DESCRIPTION_FILE, unwritable
from tuner.probes.prober import ProbeHandle, Prober, Until
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER
from tuner.recordings.recording import RecordedRun, Recording, samples_at

#: Name of the file with the replayed training progress of a run, in the folder of checkpoints.
STATE_FILE = "replayed.json"

#: Value of `RecordedRun.end` for a run that diverged.
DIVERGED_END = "diverged"


@dataclass(frozen=True, kw_only=True)
class _Position:
    """Training progress of a replayed run on a recorded curve; it is stored as the run's checkpoint.

    Args:
        configuration: Key of the configuration whose recorded curve is replayed.
        seconds: Training time up to here on the recorded curve, seconds.
        step: Number of steps up to here on the recorded curve; may be a fraction.
        ahead_seconds: Training time of this run minus `seconds`. It is not 0 after the run was resumed with
            another configuration: the run then continues on that configuration's curve, at the same number of
            samples.
        before: Training progress before the last slice, if the tuner is killed before it stores the slice.
    """

    configuration: str = ""
    seconds: float = 0.0
    step: float = 0.0
    ahead_seconds: float = 0.0
    before: _Position | None = field(default=None, compare=False)

    @property
    def samples(self) -> float:
        """Number of samples up to here."""
        return (
            samples_at(self.step, Configuration.from_key(self.configuration)) if self.configuration else 0.0
        )


@dataclass
class _Slice:
    handle: ProbeHandle
    measurement: Measurement
    position: _Position | None
    started_at: float
    reported: bool = False

    @property
    def ends_at(self) -> float:
        return self.started_at + self.measurement.charged_seconds


class RecordedProber(Prober):
    """Replays a recording under a virtual clock, so slices take no real time.

    How the clock advances:

    - A poll of the slice that ends first of all slices in flight lets the clock jump to the end of that
      slice, and returns its final measurement. A slice that runs alone therefore ends at its first poll.
    - A poll of any other slice returns RUNNING.
    - When a slice has ended, start the next slice on its nodes before the next poll. Otherwise the nodes are
      idle while the clock jumps.
    - If the same slice is polled twice in a row, the clock jumps to the end of this slice, even if other
      slices end before it.

    What a slice measures:

    - The measurement of a slice has the recorded step time, and the slice's part of the configuration's
      learning curve. That of a timing probe has only the step time.
    - A slice is charged for the training time of its part of the curve. The first slice of a run is also
      charged for the start-up time of the recording.
    - The outcome of a slice is PAUSED at a limit, REACHED at the score that reaches the target, and STOPPED
      or DIVERGED at the end of the recorded curve.

    The training progress of a run is stored in its folder when `poll` returns the final measurement of a
    slice. If the tuner is killed before that, the slice is replayed and charged again.

    Args:
        recording: The recording to replay.
        cluster: The cluster for whose nodes slices are charged; None for the cluster of the recording.
        target: The score at which a run ends; None for the target of the recording.
        consecutive: Number of consecutive scores past the target after which a run ends.
        timing_steps: Number of steps of a timing probe whose limits do not include a number of steps.
        can_resume: Whether a run resumes where its last slice ended. Otherwise each slice starts the run
            over: it is charged for the start-up, and for all earlier training again (`repeated_seconds`).
        pays_to_resume: Whether a slice that resumes is charged for a start-up too.
        folderless: Whether the training progress of runs is stored in memory instead of in files.
    """

    def __init__(
        self,
        recording: Recording,
        *,
        cluster: Cluster | None = None,
        target: float | None = None,
        consecutive: int = 1,
        timing_steps: int = 30,
        can_resume: bool = True,
        pays_to_resume: bool = False,
        folderless: bool = False,
    ) -> None:
        self._recording = recording
        self._cluster = recording.cluster if cluster is None else cluster
        self._target = recording.target if target is None else target
        self._consecutive = consecutive
        self._timing_steps = timing_steps
        self._can_resume = can_resume
        self._starts_for_free = can_resume and not pays_to_resume
        self._in_memory: dict[Path, _Position] | None = {} if folderless else None
        self._slices: dict[str, _Slice] = {}
        self._now = 0.0
        self._polled_last: str | None = None
        self._identities = (str(number) for number in itertools.count(1))

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        run = self._recording.run(configuration)
        if purpose is Purpose.TIMING:
            steps = self._timing_steps if until.steps is None else until.steps
            until = replace(until, steps=steps, scores=None)
        try:
            started = self._started(folder)
            if self._in_memory is None:
                _describe(folder, self._recording, configuration, purpose)
        except OSError as error:
            raise unwritable(folder, error) from error
        handle = ProbeHandle(
            identity=next(self._identities), configuration=configuration, purpose=purpose, folder=folder
        )
        start = _Position() if started is None or purpose is Purpose.TIMING else _as(started, run)
        # A run that resumes with the same configuration needs no start-up.
        goes_on = started is not None and start == started
        startup = 0.0 if goes_on and self._starts_for_free else self._recording.startup_seconds
        repeated = 0.0 if self._can_resume else start.seconds
        self._slices[handle.identity] = self._replayed(handle, run, start, until, startup, repeated)
        return handle

    def poll(self, handle: ProbeHandle) -> Measurement:
        found = self._slice(handle)
        waits, self._polled_last = self._polled_last == handle.identity, handle.identity
        if not found.reported:
            first = min((s for s in self._slices.values() if not s.reported), key=lambda s: s.ends_at)
            if first is not found and not waits:
                return self._running(found)
            self._now = max(self._now, found.ends_at)
        if not found.reported and found.position is not None:
            try:
                self._keep(handle.folder, found.position)
            except OSError as error:
                raise unwritable(handle.folder, error) from error
        found.reported = True
        return found.measurement

    def cancel(self, handle: ProbeHandle) -> None:
        """Cancels a slice that has not ended.

        The slice is charged up to the current virtual time. Its training is lost: the next slice of the run
        resumes where the cancelled slice started.
        """
        found = self._slice(handle)
        if not found.reported:
            found.measurement = replace(self._running(found), outcome=Outcome.STOPPED)
            found.position, found.reported = None, True

    def now(self) -> float:
        return self._now

    def close(self) -> None:
        for found in self._slices.values():
            self.cancel(found.handle)

    def _running(self, found: _Slice) -> Measurement:
        """Returns the measurement of a slice that has not ended, which contains only the cost so far."""
        configuration = found.handle.configuration
        charged = charge(self._now - found.started_at, configuration, self._cluster)
        return Measurement(
            configuration=configuration,
            purpose=found.handle.purpose,
            outcome=Outcome.RUNNING,
            charged_seconds=charged.seconds,
            charged_dollars=charged.dollars,
        )

    def _started(self, folder: Path) -> _Position | None:
        return _read(folder) if self._in_memory is None else self._in_memory.get(folder)

    def forget_after(self, folder: Path, samples: int) -> None:
        position = self._started(folder)
        if position is None or position.samples <= samples + 1:
            return
        before = position.before
        if before is not None and before.samples <= samples + 1:
            self._store(folder, before)
        elif self._in_memory is not None:
            del self._in_memory[folder]
        else:
            _state_path(folder).unlink()

    def _keep(self, folder: Path, position: _Position) -> None:
        before = self._started(folder)
        self._store(folder, replace(position, before=before and replace(before, before=None)))

    def _store(self, folder: Path, position: _Position) -> None:
        if self._in_memory is None:
            _write(folder, position)
        else:
            self._in_memory[folder] = position

    def _slice(self, handle: ProbeHandle) -> _Slice:
        if handle.identity not in self._slices:
            raise ProbeError(
                f"slice {handle.identity!r} does not belong to this prober, which started "
                f"{len(self._slices)} slices; pass the handle that its start() returned"
            )
        return self._slices[handle.identity]

    def _replayed(
        self,
        handle: ProbeHandle,
        run: RecordedRun,
        start: _Position,
        until: Until,
        startup_seconds: float,
        repeated_seconds: float,
    ) -> _Slice:
        configuration, is_timing = handle.configuration, handle.purpose is Purpose.TIMING
        end = _end(run, start, until)
        points = [] if is_timing else _points(run, start, end)
        outcome = Outcome.STOPPED if is_timing else Outcome.PAUSED
        if not is_timing and end.seconds >= run.seconds:
            outcome = Outcome.DIVERGED if run.end == DIVERGED_END else Outcome.STOPPED
        count = TargetCount(self._target, maximize=self._recording.maximize, consecutive=self._consecutive)
        for i, point in enumerate(points):
            if point.step > 0 and count.is_reached(point.value):
                # The run ends at the score past the target.
                outcome, points = Outcome.REACHED, points[: i + 1]
                seconds = point.training_seconds - start.ahead_seconds
                end = replace(end, seconds=seconds, step=float(point.step))
                break
        steps = end.step - start.step
        held = startup_seconds + repeated_seconds + end.seconds - start.seconds
        charged = charge(held, configuration, self._cluster)
        measurement = Measurement(
            configuration=configuration,
            purpose=handle.purpose,
            outcome=outcome,
            curve=tuple(points),
            ranks=(_timing(run, steps),) if steps > 0 else (),
            step=math.floor(end.step),
            samples=round(samples_at(end.step, configuration)),
            training_seconds=end.seconds + end.ahead_seconds,
            startup_seconds=startup_seconds,
            repeated_seconds=repeated_seconds,
            charged_seconds=charged.seconds,
            charged_dollars=charged.dollars,
            checkpoint=None if is_timing else str(handle.folder / CHECKPOINTS_FOLDER / STATE_FILE),
        )
        return _Slice(
            handle=handle,
            measurement=measurement,
            position=None if is_timing else end,
            started_at=self._now,
        )


def _end(run: RecordedRun, start: _Position, until: Until) -> _Position:
    """Returns the training progress at the end of a slice.

    The slice ends at the first limit that it reaches, or at the end of the recorded curve. If a limit is
    before the start of the slice, the slice ends at its start.

    Args:
        run: The recorded run of the slice's configuration.
        start: Training progress at the start of the slice.
        until: Limits of the slice.
    """
    ends = [(run.seconds, run.num_steps)]
    if until.training_seconds is not None:
        seconds = min(max(until.training_seconds - start.ahead_seconds, 0.0), run.seconds)
        ends.append((seconds, run.step_at(seconds)))
    steps = []
    if until.samples is not None:
        steps.append(float(math.ceil(until.samples / samples_at(1, run.configuration))))
    if until.steps is not None:
        steps.append(start.step + until.steps)
    if until.scores is not None:
        later = run.curve[run.curve[:, 1] > start.step]
        steps.append(float(later[until.scores - 1, 1]) if len(later) >= until.scores else run.num_steps)
    ends += [(run.seconds_at(step), min(step, run.num_steps)) for step in steps]
    seconds, step = min(ends)
    if (seconds, step) < (start.seconds, start.step):
        seconds, step = start.seconds, start.step
    return replace(start, configuration=run.configuration.key, seconds=seconds, step=step)


def _points(run: RecordedRun, start: _Position, end: _Position) -> list[CurvePoint]:
    """Returns the recorded scores that a slice replays: those after its start, up to its end.

    The first slice of a run also has the score of the untrained model, at step 0.

    Args:
        run: The recorded run of the slice's configuration.
        start: Training progress at the start of the slice.
        end: Training progress at the end of the slice.
    """
    rows = run.curve
    after = rows[:, 1] > start.step if start.step > 0 else rows[:, 1] >= 0
    return [
        CurvePoint(
            training_seconds=float(seconds) + start.ahead_seconds,
            step=math.floor(step),
            samples=round(samples_at(step, run.configuration)),
            value=float(value),
        )
        for seconds, step, value in rows[after & (rows[:, 1] <= end.step)]
    ]


def _timing(run: RecordedRun, steps: float) -> RankTiming:
    """Returns the recorded step time as the compute time of one rank, which represents all ranks.

    A recording has the mean step time of the run, and how much it differs between repetitions of the run. It
    does not have the time for which ranks waited for each other.

    Args:
        run: The recorded run of the slice's configuration.
        steps: Number of steps that the slice replays.
    """
    mean = run.step_seconds
    spread = mean * run.seconds_std / run.seconds if run.seconds_std and run.seconds > 0 else 0.0
    step = Spread(median=mean, p10=mean, p90=mean, mean=mean, std=spread, count=max(1, math.floor(steps)))
    none = replace(step, median=0.0, p10=0.0, p90=0.0, mean=0.0, std=0.0)
    batch = run.configuration.batch_size
    return RankTiming(rank=0, batch_size=batch, compute=step, sync=none, input=none, step=step)


def _as(position: _Position, run: RecordedRun) -> _Position:
    """Returns the training progress from which training continues on the recorded curve of a run.

    Args:
        position: Training progress so far, maybe on the recorded curve of another configuration.
        run: The recorded run to continue on, at the same number of processed samples.
    """
    if position.configuration == run.configuration.key:
        return position
    samples = samples_at(position.step, Configuration.from_key(position.configuration))
    step = min(samples / samples_at(1, run.configuration), run.num_steps)
    seconds = run.seconds_at(step)
    clock = position.seconds + position.ahead_seconds
    return _Position(
        configuration=run.configuration.key, seconds=seconds, step=step, ahead_seconds=clock - seconds
    )


def _state_path(folder: Path) -> Path:
    return folder / CHECKPOINTS_FOLDER / STATE_FILE


def _read(folder: Path) -> _Position | None:
    path = _state_path(folder)
    try:
        found = json.loads(path.read_text())
        before = found.pop("before", None)
        return _Position(**found, before=None if before is None else _Position(**before))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise StorageError(
            f"{path} was changed or is damaged: {error}; start a new study with --fresh"
        ) from error


def _write(folder: Path, position: _Position) -> None:
    # If the process is killed, the file is still complete. It is not flushed to the disk, since that would
    # take longer than the replay. If a power cut destroys the file, the slice is replayed.
    path = _state_path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(position)))
    partial.replace(path)


def _describe(folder: Path, recording: Recording, configuration: Configuration, purpose: Purpose) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / DESCRIPTION_FILE
    if not path.exists():
        description = {
            "recording": recording.name,
            "source": recording.source,
            "configuration": configuration.as_dict(),
            "purpose": purpose.value,
        }
        path.write_text(json.dumps(description, indent=1) + "\n")
