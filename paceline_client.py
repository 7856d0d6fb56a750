"""Client for training scripts: reports progress and asks whether to stop.

Use it by `from paceline_client import report, should_stop`. It needs only Python 3.8 and its standard
library. If Paceline does not run the script, the functions do nothing, so the script still runs without
Paceline. With several ranks, call the functions on every rank: only rank 0 (by `RANK`) writes reports, and
`should_stop` returns the same on all ranks.

A trainer that Paceline cannot start uses `connect` instead: it asks a server of Paceline for work over HTTP.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
import urllib.parse
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paceline_remote import Server

__all__ = [
    "begin",
    "checkpoint_path",
    "gradient_noise",
    "hugging_face_callback",
    "lightning_callback",
    "report",
    "should_stop",
    "values",
]


#: A slice (a part of a training without interruption) ends soon after a score: while the number of samples
#: processed since the score is at most this share of the number of samples between two scores.
_NEAR_SCORE = 0.25


class _Reported:
    """Stores what this process has reported so far, to decide when the slice ends."""

    process = ""
    samples = 0
    step = 0
    has_value = False
    new_scores: set[int] = set()  # noqa: RUF012
    scored_at = 0
    score_gap = 0
    has_asked = False


def report(
    *,
    samples: int,
    step: int | None = None,
    value: float | None = None,
    seconds: float | None = None,
    on_every_rank: bool = False,
) -> None:
    """Reports the progress of training, and the metric after an evaluation.

    Call it every few steps without a value, and after each evaluation with the value. If two consecutive
    reports have the same number of samples, the time between them counts as evaluation, not as training.

    Args:
        samples: Number of samples that all ranks together have processed since the run began, including
            those before a resume.
        step: Number of optimizer steps since the run began; by default `samples` divided by the batch size.
        value: The metric on the validation data; None if it was not evaluated.
        seconds: Training seconds by the script's own clock; by default, Paceline measures the time.
        on_every_rank: Whether ranks other than rank 0 also write this report.
    """
    reported = _Reported
    reported.samples = max(reported.samples, int(samples))
    if step is not None:
        reported.step = max(reported.step, int(step))
    if value is not None:
        reported.has_value = True
        reported.score_gap = max(reported.score_gap, reported.samples - reported.scored_at)
        reported.scored_at = reported.samples
        if value == value and samples > int(os.environ.get("PACELINE_SCORED_SAMPLES") or 0):  # not NaN
            reported.new_scores.add(int(samples))
    line: dict[str, Any] = {"samples": int(samples)}
    if step is not None:
        line["step"] = int(step)
    if value is not None:
        line["value"] = float(value)
    if seconds is not None:
        line["seconds"] = float(seconds)
    _write(line, on_every_rank)
    _Outcome.add(int(samples), value, seconds)


def begin(*, step: int = 0, samples: int = 0) -> None:
    """Starts the training clock; the time before this call counts as start-up, not as training.

    Args:
        step: Number of optimizer steps before this call, if the run was resumed from a checkpoint.
        samples: Number of samples processed before this call, if the run was resumed from a checkpoint.
    """
    _write({"event": "begin", "step": int(step), "samples": int(samples)})
    _Outcome.add(int(samples), None, None)


class _Outcome:
    """Reports the real time to target of a training that follows a recommendation, once.

    `PACELINE_REPORT_TO` is the address for outcomes with the number of the study and its goal, as in
    `https://paceline.example.org/api/v1/outcomes?study=7&target=0.9&direction=maximize`. Nothing in here may
    fail the training.
    """

    first: tuple[float, int] | None = None
    samples = 0
    seconds = 0.0
    scoring = 0.0
    last_time = 0.0
    scores_past = 0
    reached_seconds = 0.0
    has_score = False
    is_sent = False

    @classmethod
    def add(cls, samples: int, value: float | None, own_seconds: float | None) -> None:
        """Follows the training clock: without evaluations, and from the first sample on."""
        place = os.environ.get("PACELINE_REPORT_TO")
        # A probe of Paceline has a file that asks it to stop.
        is_probe = "PACELINE_STOP_FILE" in os.environ
        if not place or is_probe or cls.is_sent or os.environ.get("RANK", "0") != "0":
            return
        try:
            now = time.monotonic()
            if cls.first is None:
                cls.first = (now, samples)
                atexit.register(cls.at_exit)
            elif samples == cls.samples:
                cls.scoring += now - cls.last_time
            cls.samples, cls.last_time = samples, now
            passed, done = now - cls.first[0] - cls.scoring, samples - cls.first[1]
            # The time before the first report is computed from the speed after it.
            whole = passed * samples / done if done > 0 else 0.0
            cls.seconds = whole if own_seconds is None else float(own_seconds)
            if value is not None:
                cls.score(place, float(value))
        except Exception as error:
            cls.warn(error)

    @classmethod
    def score(cls, place: str, value: float) -> None:
        """Reports the time to target once enough consecutive scores are past the target."""
        cls.has_score = True
        goal = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(place).query))
        target = float(goal["target"])
        is_past = value >= target if goal.get("direction", "maximize") == "maximize" else value <= target
        cls.scores_past = cls.scores_past + 1 if is_past else 0
        if cls.scores_past == 1:
            cls.reached_seconds = cls.seconds
        if cls.scores_past >= int(goal.get("scores", "1")):
            cls.is_sent = True
            # Not a daemon: at its end, the script waits for the report, at most ten seconds.
            threading.Thread(target=cls.send, args=(True, cls.reached_seconds)).start()

    @classmethod
    def at_exit(cls) -> None:
        """Reports that the training ended without reaching the target, unless it failed."""
        if cls.has_score and not cls.is_sent and not hasattr(sys, "last_type"):
            cls.send(False, cls.seconds)

    @classmethod
    def send(cls, reached: bool, seconds: float) -> None:
        """Sends the outcome; a failure is only a warning."""
        try:
            if seconds <= 0.0:
                raise ValueError("the training clock is not known after a single report")
            place = os.environ["PACELINE_REPORT_TO"]
            body: dict[str, Any] = {"seconds": seconds, "reached": reached, "source": "launch file"}
            body["key"] = os.urandom(16).hex()
            goal = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(place).query))
            if "values" in goal:
                body["values"] = json.loads(goal["values"])
            send_outcome(place, body)
        except Exception as error:
            cls.warn(error)

    @staticmethod
    def warn(error: Exception) -> None:
        """Prints why the outcome was not reported."""
        print(f"paceline: the time to target was not reported: {error!r}", file=sys.stderr)


def send_outcome(place: str, body: dict[str, Any]) -> None:
    """Sends the outcome of a training that follows a recommendation, with the token in `PACELINE_TOKEN`.

    Args:
        place: Value of `PACELINE_REPORT_TO`, with the number of the study.
        body: Further fields of the outcome: `seconds`, `reached`, `source`, `values` and `key`.

    Raises:
        Exception: The address is not valid, the token is missing, or the server refuses the outcome.
    """
    parts = urllib.parse.urlsplit(place)
    goal = dict(urllib.parse.parse_qsl(parts.query))
    headers = {"Content-Type": "application/json"}
    headers["Authorization"] = "Bearer " + os.environ["PACELINE_TOKEN"]
    url = urllib.parse.urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    data = json.dumps({"study_id": int(goal["study"]), **body}).encode()
    request = urllib.request.Request(url, data, headers)
    with urllib.request.build_opener(_NoRedirects).open(request, timeout=10):
        pass


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses redirects, which could lead the token to another server."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def should_stop() -> bool:
    """Returns whether the script has to save to `checkpoint_path()` and end now; call it after each report.

    If torch's process group is initialized, the ranks agree by a small all-reduce, so that all of them leave
    the training loop at the same step. Then every rank has to call this function equally often.
    """
    stop_file = os.environ.get("PACELINE_STOP_FILE")
    if not stop_file:
        return False
    if not _Reported.has_asked:
        # A script that calls this function gets time to save; a script that never calls it gets SIGTERM.
        _Reported.has_asked = True
        _write({"event": "asks"})
    return _agreed(os.path.exists(stop_file) or _slice_is_over())  # noqa: PTH110


def checkpoint_path() -> str | None:
    """Returns the path of the checkpoint, to save to and to resume from; None if Paceline runs no probe.

    The script may create a file or a folder there. Write a file under another name and rename it, so that the
    last checkpoint survives if the script is killed while it saves.
    """
    return os.environ.get("PACELINE_CHECKPOINT") or None


def values() -> dict[str, Any]:
    """Returns the values that Paceline chose, such as `values()["learning_rate"]`, by name.

    The dictionary is empty if Paceline did not start the script.
    """
    path = os.environ.get("PACELINE_VALUES")
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:  # noqa: PTH123
        found: dict[str, Any] = json.load(file)
    return found


def connect(url: str, token: str | None = None, *, context: Any = None) -> Server:
    """Returns a connection to a server of Paceline, for a trainer that Paceline cannot start.

    This needs the module `paceline_remote` beside this one.

    Args:
        url: Address of the server, such as `https://paceline.example.org`.
        token: Access token of the role `submit`; by default, the value of the variable `PACELINE_TOKEN`.
        context: An `ssl.SSLContext` for https; by default, that of `urllib`.
    """
    from paceline_remote import Server

    return Server(url, token or os.environ.get("PACELINE_TOKEN", ""), context)


def gradient_noise(
    *,
    samples: int,
    small_batch: float,
    small_squared_norm: float,
    large_batch: float,
    large_squared_norm: float,
) -> None:
    """Reports squared gradient norms of a small and a large batch, which give the gradient noise scale.

    With data-parallel training, the small batch is the batch of one rank, whose gradient is known before the
    all-reduce. The large batch is that of all ranks, whose mean gradient is known after the all-reduce.

    Args:
        samples: Number of samples that all ranks together have processed since the run began.
        small_batch: Number of samples in the small batch.
        small_squared_norm: Squared norm of the gradient of the small batch; the mean if there are several.
        large_batch: Number of samples in the large batch.
        large_squared_norm: Squared norm of the gradient of the large batch.
    """
    _write(
        {
            "event": "noise",
            "samples": int(samples),
            "small_batch": float(small_batch),
            "small_squared_norm": float(small_squared_norm),
            "large_batch": float(large_batch),
            "large_squared_norm": float(large_squared_norm),
        }
    )


def hugging_face_callback(value: str = "eval_accuracy") -> Any:
    """Returns a `TrainerCallback` that reports every step and evaluation, and saves and stops when asked.

    Args:
        value: Name of the metric to report, one of those that an evaluation of the `Trainer` returns.
    """
    from transformers import TrainerCallback

    class Paceline(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            begin(step=state.global_step, samples=_samples(state.global_step))

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            report(step=state.global_step, samples=_samples(state.global_step))
            if should_stop():
                control.should_training_stop = control.should_save = True

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            if metrics and value in metrics:
                report(
                    step=state.global_step,
                    samples=_samples(state.global_step),
                    value=float(metrics[value]),
                )
                if should_stop():
                    control.should_training_stop = control.should_save = True

    return Paceline()


def lightning_callback(value: str = "val_accuracy") -> Any:
    """Returns a Lightning `Callback` that reports every step and validation, and saves and stops when asked.

    Args:
        value: Name of the metric to report, as the `LightningModule` logs it.
    """
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError:
        from pytorch_lightning.callbacks import Callback

    class Paceline(Callback):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.step = trainer.global_step
            begin(step=self.step, samples=_samples(self.step))

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if trainer.global_step == self.step:  # a micro-batch whose gradient is accumulated
                return
            self.step = trainer.global_step
            report(step=self.step, samples=_samples(self.step))
            self.stop_if_asked(trainer)

        def stop_if_asked(self, trainer: Any) -> None:
            if should_stop():
                trainer.should_stop = True
                path = checkpoint_path()
                if path:
                    trainer.save_checkpoint(path)

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            if not trainer.sanity_checking and value in trainer.callback_metrics:
                step = trainer.global_step
                report(step=step, samples=_samples(step), value=float(trainer.callback_metrics[value]))
                self.stop_if_asked(trainer)

    return Paceline()


def _samples(step: int) -> int:
    return int(step) * int(os.environ.get("PACELINE_BATCH_SIZE", "1"))


def _slice_is_over() -> bool:
    """Whether the training has gone as far as this slice (a part without interruption) has to go."""
    if os.environ.get("PACELINE_PURPOSE") != "timing":
        if 0 < int(os.environ.get("PACELINE_UNTIL_SCORES") or 0) <= len(_Reported.new_scores):
            return True
        # A slice needs an evaluation to show a curve, and ends right after one.
        past = _Reported.samples - _Reported.scored_at
        if not _Reported.has_value or past > _NEAR_SCORE * _Reported.score_gap:
            return False
    samples = int(os.environ.get("PACELINE_UNTIL_SAMPLES") or 0)
    steps = int(os.environ.get("PACELINE_UNTIL_STEPS") or 0)
    return 0 < samples <= _Reported.samples or 0 < steps <= _Reported.step


def _agreed(flag: bool) -> bool:
    """Whether the flag is set on any rank; on this rank only if torch has no process group.

    The function does not import torch; it uses torch only if the script has imported it.
    """
    torch = sys.modules.get("torch")
    distributed = sys.modules.get("torch.distributed")
    if torch is None or distributed is None or not distributed.is_available():
        return flag
    if not distributed.is_initialized() or distributed.get_world_size() == 1:
        return flag
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    said = torch.tensor([1.0 if flag else 0.0], device=device)
    distributed.all_reduce(said, op=distributed.ReduceOp.MAX)
    return bool(said.item() > 0)


def _write(line: dict[str, Any], on_every_rank: bool = False) -> None:
    """Appends a line in a single write, so that lines of several processes do not mix."""
    path = os.environ.get("PACELINE_METRICS")
    if not path or not (on_every_rank or os.environ.get("RANK", "0") == "0"):
        return
    if not _Reported.process:
        _Reported.process = "%s-%d-%d" % (os.uname().nodename, os.getpid(), time.time_ns())  # noqa: UP031
    line = {**line, "time": time.monotonic(), "process": _Reported.process}
    data = (json.dumps(line) + "\n").encode()
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)
