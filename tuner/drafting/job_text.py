"""The text of a drafted job file, with comments that say what was seen and what was guessed."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tuner.drafting.draft import Draft
from tuner.drafting.parameters import Role, number_of
from tuner.drafting.readings import EpochSize, Reading
from tuner.drafting.trial_run import TrialRun

#: What is written where nothing is known.
_ANY_BATCH, _ANY_RATE, _ANY_EPOCH, _ANY_TARGET = 32, 0.001, 10_000, 0.9
_ANY_PATTERN = r"epoch (?P<epoch>\d+).*accuracy[ =:]+(?P<value>[-+.\w]+)"
#: A space reaches this many doublings, and this factor of the learning rate, to either side of the present.
_DOUBLINGS, _RATES = 3, 30.0
#: Scores are noisy if so many of the later ones jump by this share of their range.
_JUMP, _NOISY_SHARE, _FEWEST_JUMPS, _NOISY_IN_A_ROW = 0.08, 0.3, 10, 3
#: A target is this share of what a run gained below its best score.
_MARGIN = 0.02
_UNSEEN = "            # GUESS: no score was seen"
_NAMES: dict[Role, str] = {
    "batch_size": "the batch size",
    "learning_rate": "the learning rate",
    "epochs": "the number of epochs",
    "steps": "the number of steps",
    "seed": "the seed",
    "output": "the folder that it writes to",
    "log": "the file that it writes scores to",
    "save": "the place that it saves to",
    "resume": "what it resumes from",
}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a job aims at.

    Args:
        metric: Its name.
        direction: Stated where the name is not a known one; else None.
        target: Its value.
        is_percent: Whether the script prints percent for a target below 1.
        num_in_a_row: Scores in a row that have to pass the target.
    """

    metric: str
    direction: str | None
    target: float
    is_percent: bool = False
    num_in_a_row: int = 1


@dataclass(frozen=True, kw_only=True)
class JobDraft:
    """Everything a job file is written from.

    Args:
        command: The command as the user gave it.
        draft: What is known of it.
        reading: How its scores are read; None if no score was seen.
        trial: Its short run; None if it was not run.
        folder: Its working folder, relative to the job file.
        epoch_samples: Size of the training set; None if unknown.
        shared: Files with the state of a training that the run left in the working folder.
        resume_works: Whether trying to resume worked; None if it was not tried.
    """

    command: str
    draft: Draft
    reading: Reading | None
    trial: TrialRun | None
    folder: str = "."
    epoch_samples: EpochSize | None = None
    shared: tuple[str, ...] = ()
    resume_works: bool | None = None

    def text(self) -> str:
        """The job file."""
        sections = (
            self._head(),
            self._workload(),
            self._goal(),
            self._space(),
            self._baseline(),
            self._budget(),
        )
        return "\n\n".join("\n".join(section) for section in sections) + "\n"

    def guesses(self) -> list[str]:
        """What is guessed, a line each, with the key and its value."""
        found = []
        for line in self.text().splitlines():
            stated, label, words = line.partition("# GUESS: ")
            if label:
                found.append(f"{stated.strip()}: {words}" if stated.strip() else words)
        return found

    def _head(self) -> Iterator[str]:
        yield f"# Drafted by `paceline init --script {json.dumps(self.command)}`."
        if self.trial is not None:
            end = "ended by itself" if self.trial.exit_code is not None else "was stopped"
            yield f"# The script ran for {self.trial.seconds:.0f} s and {end}."
        else:
            yield "# The script was not run, so nothing is known of its output."
        yield '# "seen" was read from the script, its help or its output. "GUESS" is an assumption: check it.'

    def _workload(self) -> Iterator[str]:
        draft = self.draft
        yield "[workload]"
        for role in _NAMES:
            yield from self._role(role)
        yield f"command = {_string(draft.command_template())}"
        one_per = "node" if draft.line.kind == "torchrun" else "job"
        yield f'one_per = "{one_per}"'
        if self.folder != ".":
            yield f"folder = {_string(self.folder)}"
        yield from self._resume()
        yield from self._shared()
        yield from self._epoch()
        variables = draft.environment()
        if variables:
            pairs = ", ".join(f"{name} = {_string(value)}" for name, value in variables.items())
            yield f"environment = {{ {pairs} }}"
        if (draft.num_ranks > 1 or draft.line.kind != "plain") and draft.line.num_ranks is None:
            yield "# GUESS: one process; set cluster.devices_per_node to the number that your launcher starts"
        yield ""
        yield from self._metrics()
        if draft.num_ranks > 1:
            yield ""
            yield "[cluster]"
            yield "nodes = [1]            # or [1, 2, 4]; several machines need a launcher"
            yield f"devices_per_node = {draft.num_ranks}            # seen: processes of your command"

    def _role(self, role: Role) -> Iterator[str]:
        draft = self.draft
        parameter = draft.roles.get(role)
        if parameter is None:
            if role == "batch_size" or role == "learning_rate":
                yield (
                    f"# GUESS: no option for {_NAMES[role]} was found: give it in --script, put {{{role}}} "
                    f"where the script takes it, or read $PACELINE_{role.upper()} in it"
                )
            elif role == "seed":
                yield "# No option for a seed was found: --confirm cannot train with other seeds."
            return
        value, place = draft.stated(role)
        if role == "steps" and number_of(value) is None:
            return
        words = f"{parameter.name} sets {_NAMES[role]}"
        where = f"{parameter.place}" if not value else f"{value} by {place}"
        yield f"# seen: {words} ({_line(where)})"
        if role == "batch_size" and draft.num_ranks > 1 and parameter.is_per_rank is None:
            yield "# GUESS: it is the batch of one process; if it is that of all, write {batch_size}"
        if role in ("epochs", "steps"):
            raised = draft.raised_limit()
            limit = draft.limit()
            if raised is not None and raised[0] == role and limit is not None:
                yield (
                    f"# GUESS: {parameter.name} raised from {limit[1]:g} to {raised[1]:g}, so that slower "
                    "settings can reach the target; put the old value back if the learning rate depends on it"
                )
            elif limit is not None and limit[0] == role and draft.source.has_schedule:
                yield (
                    "# It stays as it is, since the learning rate seems to follow a schedule. A run that "
                    "ends below the target says little: raise it if you can."
                )

    def _resume(self) -> Iterator[str]:
        text = self.draft.resume_text()
        by_itself = "the script resumes by itself from what it finds there" if text == "" else ""
        if text is not None and self.resume_works is not False:
            yield (
                "# seen: `paceline check --resume` resumed so"
                if self.resume_works
                else "# GUESS: what it saves"
            )
            yield f"resume = {_string(text)}{f'            # {by_itself}' if by_itself else ''}"
        elif text is not None:
            yield "# GUESS: it did not resume like this when it was tried, so each slice starts over:"
            yield f"# resume = {_string(text)}"
        elif "resume" in self.draft.roles:
            parameter = self.draft.roles["resume"]
            words = f"{parameter.name} resumes, but it was not seen what it saves"
            yield f"# GUESS: {words}; each slice starts over:"
            yield f'# resume = "{parameter.name} {{checkpoint}}"'
        else:
            yield "# No option to resume was found: each slice of a run starts over and costs its full time."

    def _shared(self) -> Iterator[str]:
        if self.shared:
            names = _line(", ".join(self.shared[:3]))
            yield (
                f"# GUESS: the script saves to {names}, which all probes would share: let it save to "
                "{checkpoint}, and remove what the run left"
            )

    def _epoch(self) -> Iterator[str]:
        reading = self.reading
        if self.epoch_samples is not None:
            size = self.epoch_samples
            label = "seen" if size.is_exact else "GUESS: batches times batch size of"
            yield f"epoch_samples = {size.samples:_}            # {label}: {_line(size.line)}"
        elif reading is None or "epoch" in reading.fields:
            yield f"epoch_samples = {_ANY_EPOCH:_}            # GUESS: set the size of the training set"

    def _metrics(self) -> Iterator[str]:
        reading = self.reading
        yield "[workload.metrics]"
        if reading is None:
            yield "# GUESS: no score was seen. Write how a line with a score looks, or where its file is."
            yield from self._last_lines()
            yield 'source = "output"                    # or "csv", "json", "tensorboard" with path = "..."'
            yield f"pattern = {_literal(_ANY_PATTERN)}"
            return
        for example in reading.examples:
            yield f"# seen: {_line(example)}"
        if reading.meaning.split == "training":
            yield "# GUESS: only a score of the training data was seen; a score of validation data is better"
        elif reading.meaning.split == "unknown" and reading.is_named:
            yield "# GUESS: nothing says which data this score is of; a score of validation data is better"
        yield f'source = "{reading.source}"'
        if reading.path is not None:
            yield f"path = {_string(reading.path)}"
            if "{" not in reading.path:
                yield "# GUESS: each run writes this file; run no two probes at the same time (--parallel)"
        if len(reading.patterns) == 1:
            yield f"pattern = {_literal(reading.patterns[0])}"
        elif reading.patterns:
            yield "pattern = ["
            yield from (f"    {_literal(pattern)}," for pattern in reading.patterns)
            yield "]"
        for key, name in reading.columns:
            yield f"{key} = {_string(name)}"

    def _last_lines(self) -> Iterator[str]:
        if self.trial is not None:
            lines = [line for line in self.trial.lines if line.strip()]
            yield from (f"# printed: {_line(line)}" for line in lines[-5:])

    def goal(self) -> Goal:
        """Metric, direction and a target that the run that was seen has passed."""
        if self.reading is None:
            return Goal(metric="accuracy", direction=None, target=_ANY_TARGET)
        return goal_of(self.reading)

    def _goal(self) -> Iterator[str]:
        goal, reading = self.goal(), self.reading
        yield "[goal]"
        if reading is not None:
            values = reading.values
            best = max(values) if reading.meaning.direction == "maximize" else min(values)
            unit = " percent" if goal.is_percent else ""
            yield (
                f"# seen: {len(values)} values of {_line(reading.label)!r}, from {values[0]:g} to a best of "
                f"{best:g}{unit}"
            )
        unnamed = "" if reading is None or reading.is_named else "            # GUESS: from the values alone"
        yield f"metric = {_string(goal.metric)}{unnamed or (_UNSEEN if reading is None else '')}"
        if goal.direction is not None:
            yield f'direction = "{goal.direction}"'
        near = (
            "near the best value that was seen; set what you train for"
            if reading
            else "set what you train for"
        )
        if reading is not None and _has_not_improved(reading):
            near = "a placeholder, since no score improved in the run; set what you train for"
        yield f"target = {goal.target!r}            # GUESS: {near}"
        if goal.num_in_a_row > 1:
            yield f"consecutive_scores = {goal.num_in_a_row}  # GUESS: scores jump; one alone proves little"
        yield "trainings = 10            # GUESS: how often you will train with the answer"

    def _space(self) -> Iterator[str]:
        batch, rate = self.draft.batch_size or _ANY_BATCH, self.draft.learning_rate or _ANY_RATE
        low = batch
        for _ in range(_DOUBLINGS):
            if low % 2 == 0 and low // 2 >= self.draft.num_ranks:
                low //= 2
        high = batch * 2**_DOUBLINGS
        if self.epoch_samples is not None:
            high = max(min(high, self.epoch_samples.samples // 4), batch)
        yield "[space]"
        yield "# GUESS: [space] has the values around your present ones that are tried"
        yield f"batch_size = {{ low = {low}, high = {high} }}            # samples of an optimizer step"
        yield f"learning_rate = {{ low = {_rounded(rate / _RATES)}, high = {_rounded(rate * _RATES)} }}"

    def _baseline(self) -> Iterator[str]:
        draft = self.draft
        yield "[baseline]"
        yield "# Your present settings: probed first, and the answer is compared with them."
        for role, number, any_value in (
            ("batch_size", draft.batch_size, _ANY_BATCH),
            ("learning_rate", draft.learning_rate, _ANY_RATE),
        ):
            place = draft.stated(role)[1]  # type: ignore[arg-type]
            label = f"seen: {place}" if number is not None else "GUESS: its present value is not known"
            yield f"{role} = {number if number is not None else any_value!r}            # {_line(label)}"

    def _budget(self) -> Iterator[str]:
        yield "[budget]"
        if self.trial is not None and self.trial.exit_code is not None and self.reading is not None:
            minutes = max(math.ceil(10 * self.trial.seconds / 60), 2)
            yield f'time = "{minutes}m"            # GUESS: about ten times as long as the run that was seen'
        else:
            yield 'time = "30m"            # GUESS: what a search may take'


def goal_of(reading: Reading) -> Goal:
    """Metric, direction and target for a score.

    Args:
        reading: With at least one value.
    """
    meaning, values = reading.meaning, reading.values
    maximize = meaning.direction == "maximize"
    in_a_row = _NOISY_IN_A_ROW if _is_noisy(values) else 1
    best = _best_in_a_row(values, in_a_row, maximize=maximize)
    metric, direction, is_percent = meaning.metric, None, False
    largest = max(values)
    if metric in ("accuracy", "error_rate"):
        is_percent = reading.has_percent_sign or 1.0 < largest <= 100.0
        if largest > 100.0 or min(values) < 0.0:
            metric, is_percent = {"accuracy": "correct", "error_rate": "error"}[metric], False
    if metric not in ("accuracy", "error_rate", "loss", "bits_per_character"):
        direction = meaning.direction
    scale = 100.0 if is_percent else 1.0
    if _has_not_improved(reading):
        is_share = metric in ("accuracy", "error_rate") or 0.0 <= best <= 1.0
        target = _harder(best / scale, maximize=maximize, is_share=is_share)
    else:
        target = _easier(best / scale, values[0] / scale, maximize=maximize)
    return Goal(
        metric=metric, direction=direction, target=target, is_percent=is_percent, num_in_a_row=in_a_row
    )


def _is_noisy(values: Sequence[float]) -> bool:
    """Whether many scores jump by much of their range, as single episodes of a game do."""
    late = values[len(values) // 2 :]
    spread = max(values) - min(values)
    jumps = [abs(b - a) > _JUMP * spread for a, b in itertools.pairwise(late)]
    return len(jumps) >= _FEWEST_JUMPS and sum(jumps) >= _NOISY_SHARE * len(jumps)


def _best_in_a_row(values: Sequence[float], count: int, *, maximize: bool) -> float:
    """The best value that so many scores in a row have passed."""
    windows = [values[i : i + count] for i in range(max(len(values) - count + 1, 1))]
    return max(min(window) for window in windows) if maximize else min(max(window) for window in windows)


def _has_not_improved(reading: Reading) -> bool:
    values = reading.values
    best = max(values) if reading.meaning.direction == "maximize" else min(values)
    return best == values[0]


def _harder(best: float, *, maximize: bool, is_share: bool) -> float:
    """A placeholder that a run which has not improved does not reach at once."""
    if maximize and is_share:
        return round(best + 0.5 * (1.0 - best), 3)
    if maximize:
        return round(best + max(abs(best), 1.0), 3)
    return round(0.5 * best, 6) if best > 0 else round(best - max(abs(best), 1.0), 3)


def _easier(best: float, first: float, *, maximize: bool) -> float:
    """A rounded value that is a little easier to reach than the best one."""
    gained = abs(best - first)
    if gained == 0.0:
        return best
    digits = max(1 - math.floor(math.log10(_MARGIN * gained)) - 1, 0)
    scale = 10.0**digits
    raw = best - _MARGIN * gained if maximize else best + _MARGIN * gained
    return (math.floor(raw * scale) if maximize else math.ceil(raw * scale)) / scale


def _rounded(number: float) -> str:
    """One significant digit, as TOML writes a float."""
    text = f"{number:.0e}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{int(exponent)}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _literal(pattern: str) -> str:
    """A regular expression as TOML takes it without escapes, where that is possible."""
    if not pattern.isprintable():
        return _string(pattern)
    if "'" not in pattern:
        return f"'{pattern}'"
    return f"'''{pattern}'''" if "'''" not in pattern and not pattern.endswith("'") else _string(pattern)


def _line(text: str) -> str:
    """Text for a comment: one line, not too long, and without control characters."""
    plain = "".join(c if c.isprintable() else " " for c in text).strip()
    plain = " ".join(plain.split())
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
