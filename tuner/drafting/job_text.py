"""Writes the text of a drafted job file, whose comments say which values were seen and which were guessed."""

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

#: Placeholders in the job file for unknown values.
_ANY_BATCH, _ANY_RATE, _ANY_EPOCH, _ANY_TARGET = 32, 0.001, 10_000, 0.9
_ANY_PATTERN = r"epoch (?P<epoch>\d+).*accuracy[ =:]+(?P<value>[-+.\w]+)"
#: The drafted search space contains the values that the command sets now, and extends to both sides of them:
#: for the batch size by this number of doublings, for the learning rate by this factor.
_DOUBLINGS, _RATES = 3, 30.0
#: Scores are noisy if many differences between consecutive scores are large. A difference is large if it
#: exceeds `_JUMP` times the range of all scores. In the second half of the run, there must be at least
#: `_FEWEST_JUMPS` differences, and at least the share `_NOISY_SHARE` of them must be large. If the scores are
#: noisy, `_NOISY_IN_A_ROW` consecutive scores must pass the target.
_JUMP, _NOISY_SHARE, _FEWEST_JUMPS, _NOISY_IN_A_ROW = 0.08, 0.3, 10, 3
#: The drafted target is worse than the best score in the short run of the command. The difference is this
#: share of the improvement from the first to the best score.
_MARGIN = 0.02
_NAMES: dict[Role, str] = {
    "batch_size": "the batch size",
    "learning_rate": "the learning rate",
    "epochs": "the number of epochs",
    "steps": "the number of steps",
    "seed": "the seed",
    "output": "the output folder",
    "log": "the file for scores",
    "save": "the path to save to",
    "resume": "the state to resume from",
}


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The section `[goal]` of a drafted job.

    Args:
        metric: Name of the metric.
        direction: `maximize` or `minimize` for a metric that Paceline does not know; None for a known metric.
        target: Metric value that a training run has to reach.
        is_percent: Whether the script prints percentages, while the target is a fraction.
        num_in_a_row: Number of consecutive scores that must pass the target.
    """

    metric: str = "accuracy"
    direction: str | None = None
    target: float = _ANY_TARGET
    is_percent: bool = False
    num_in_a_row: int = 1


@dataclass(frozen=True, kw_only=True)
class JobDraft:
    """A drafted job file.

    Args:
        command: Training command as the user gave it, for a comment.
        draft: The parsed command and the parameters of its script.
        reading: How to read the scores of the script; None if no score was found.
        trial: Result of a short run of the command; None if the command was not run.
        folder: Working folder of the command, relative to the folder of the job file.
        epoch_samples: Size of the training set; None if unknown.
        shared: Files with a training state that the script wrote into its working folder in the short run.
            All runs would share them, so the job file has a comment on them.
        resume_works: Whether the script resumed from its saved state in a test; None if it was not tested.
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
        """Returns the text of the job file."""
        sections = (
            self._head(),
            self._workload(),
            self._metrics(),
            self._cluster(),
            self._goal(),
            self._space(),
            self._baseline(),
            self._budget(),
        )
        texts = ("\n".join(section) for section in sections)
        return "\n\n".join(text for text in texts if text) + "\n"

    def guesses(self) -> list[str]:
        """Returns a line of text for each guess in the job file, with the key, its value and the reason."""
        found = []
        for line in self.text().splitlines():
            stated, label, words = line.partition("# GUESS: ")
            if label:
                found.append(f"{stated.strip()}: {words}" if stated.strip() else words)
        return found

    def _head(self) -> Iterator[str]:
        yield f"# Drafted by `paceline init --script {json.dumps(self.command)}`."
        if self.trial is None:
            yield "# The script was not run, so its output is unknown."
        else:
            end = "ended by itself" if self.trial.exit_code is not None else "was stopped"
            yield f"# The script ran for {self.trial.seconds:.0f} s and {end}."
        yield '# "seen": found in the script, its help or its output. "GUESS": an assumption; check it.'

    def _workload(self) -> Iterator[str]:
        draft = self.draft
        yield "[workload]"
        for role in _NAMES:
            yield from self._role(role)
        yield f"command = {_string(draft.command_template())}"
        yield f'one_per = "{"node" if draft.line.kind == "torchrun" else "job"}"'
        if self.folder != ".":
            yield f"folder = {_string(self.folder)}"
        yield from self._resume()
        if self.shared:
            yield (
                f"# GUESS: the script saves to {_line(', '.join(self.shared[:3]))}, which all probes would "
                "share: let it save to {checkpoint}, and remove these files"
            )
        if self.epoch_samples is not None:
            size = self.epoch_samples
            label = "seen" if size.is_exact else "GUESS: batches in an epoch times batch size, from the line"
            yield f"epoch_samples = {size.samples:_}            # {label}: {_line(size.line)}"
        elif self.reading is None or "epoch" in self.reading.fields:
            yield f"epoch_samples = {_ANY_EPOCH:_}            # GUESS: set the size of the training set"
        variables = draft.environment()
        if variables:
            pairs = ", ".join(f"{name} = {_string(value)}" for name, value in variables.items())
            yield f"environment = {{ {pairs} }}"
        if draft.line.num_ranks is None:
            yield "# GUESS: one process; if it starts more on a node, set cluster.devices_per_node"

    def _role(self, role: Role) -> Iterator[str]:
        """Yields comments for the job file on the parameter with a given role, such as the batch size."""
        draft = self.draft
        parameter = draft.roles.get(role)
        if parameter is None:
            if role in ("batch_size", "learning_rate"):
                yield (
                    f"# GUESS: no option for {_NAMES[role]} was found: give it in --script, write {{{role}}} "
                    f"into the command, or read $PACELINE_{role.upper()} in the script"
                )
            elif role == "seed":
                yield "# No option for a seed was found: --confirm cannot train with other seeds."
            return
        value, place = draft.stated(role)
        if role == "steps" and number_of(value) is None:
            return
        where = f"{value} by {place}" if value else parameter.place
        yield f"# seen: {parameter.name} sets {_NAMES[role]} ({_line(where)})"
        if role == "batch_size" and draft.num_ranks > 1 and parameter.is_per_rank is None:
            yield "# GUESS: this is the batch size of one process; if it is that of all, write {batch_size}"
        limit, raised = draft.limit(), draft.raised_limit()
        if limit is None or limit[0] != role:
            return
        if raised is not None:
            yield (
                f"# GUESS: {parameter.name} raised from {limit[1]:g} to {raised[1]:g}, so that slower "
                "configurations can reach the target; undo this if the learning rate depends on it"
            )
        else:
            yield (
                "# This limit is not raised, since the learning rate seems to follow a schedule. A run that "
                "ends below the target gives little information: raise it if you can."
            )

    def _resume(self) -> Iterator[str]:
        text, option = self.draft.resume_text(), self.draft.roles.get("resume")
        if text is not None and self.resume_works is not False:
            yield (
                "# seen: `paceline check --resume` resumed like this"
                if self.resume_works
                else "# GUESS: this way to resume is derived from the files that the short run saved"
            )
            note = "            # the script itself finds its saved files and resumes from them"
            yield f"resume = {_string(text)}{'' if text else note}"
        elif text is not None:
            yield "# GUESS: the script did not resume like this in a test, so each slice starts from scratch:"
            yield f"# resume = {_string(text)}"
        elif option is not None:
            yield f"# GUESS: {option.name} resumes, but saved no state; each slice starts from scratch:"
            yield f'# resume = "{option.name} {{checkpoint}}"'
        else:
            yield "# No option to resume was found: each slice (part) of a run starts from scratch."

    def _metrics(self) -> Iterator[str]:
        reading = self.reading
        yield "[workload.metrics]"
        if reading is None:
            yield "# GUESS: no score was seen. Set the pattern of a line with a score, or the path of a file."
            lines = [] if self.trial is None else [line for line in self.trial.lines if line.strip()]
            yield from (f"# printed: {_line(line)}" for line in lines[-5:])
            yield 'source = "output"                    # or "csv", "json", "tensorboard" with path = "..."'
            yield f"pattern = {_literal(_ANY_PATTERN)}"
            return
        for example in reading.examples:
            yield f"# seen: {_line(example)}"
        if reading.meaning.split == "training":
            yield "# GUESS: only a score of the training data was seen; a score of validation data is better"
        elif reading.meaning.split == "unknown" and reading.is_named:
            yield "# GUESS: the data on which this score was measured are unknown; validation data are better"
        yield f'source = "{reading.source}"'
        if reading.path is not None:
            yield f"path = {_string(reading.path)}"
            if "{" not in reading.path:
                yield "# GUESS: all runs write this file; do not run two probes at the same time (--parallel)"
        if len(reading.patterns) == 1:
            yield f"pattern = {_literal(reading.patterns[0])}"
        elif reading.patterns:
            yield "pattern = ["
            yield from (f"    {_literal(pattern)}," for pattern in reading.patterns)
            yield "]"
        for key, name in reading.columns:
            yield f"{key} = {_string(name)}"

    def _cluster(self) -> Iterator[str]:
        if self.draft.num_ranks > 1:
            yield "[cluster]"
            yield "nodes = [1]            # or [1, 2, 4]; several machines need a launcher"
            yield f"devices_per_node = {self.draft.num_ranks}            # seen: processes of your command"
        else:
            yield "# [cluster]"
            if self.draft.line.kind == "torchrun":
                yield "# nodes = [1, 2, 4]            # to choose from; several machines need a launcher"
        yield "# dollars_per_node_hour = 3.0            # price of a node, if the price of a training matters"

    def _goal(self) -> Iterator[str]:
        reading = self.reading
        goal = Goal() if reading is None else goal_of(reading)
        guess, advice = "            # GUESS: no score was seen", "set the value that you want to reach"
        yield "[goal]"
        if reading is not None:
            values = reading.values
            best = max(values) if reading.meaning.direction == "maximize" else min(values)
            guess = "" if reading.is_named else "            # GUESS: the name is guessed from the values"
            where = (
                "it is near the best score of the short run"
                if best != values[0]
                else "no score was better than the first one"
            )
            advice = f"{where}; {advice}"
            yield (
                f"# seen: {len(values)} values of {_line(reading.label)!r}, from {values[0]:g} to a best of "
                f"{best:g}{' percent' if goal.is_percent else ''}"
            )
        yield f"metric = {_string(goal.metric)}{guess}"
        if goal.direction is not None:
            yield f'direction = "{goal.direction}"'
        yield f"target = {goal.target!r}            # GUESS: {advice}"
        if goal.num_in_a_row > 1:
            yield f"consecutive_scores = {goal.num_in_a_row}  # GUESS: the scores are noisy"
        yield "trainings = 10            # GUESS: how often you will train with the recommendation"

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
        yield "# GUESS: the ranges extend to both sides of your present values"
        yield f"batch_size = {{ low = {low}, high = {high} }}            # samples of an optimizer step"
        yield f"learning_rate = {{ low = {_rounded(rate / _RATES)}, high = {_rounded(rate * _RATES)} }}"

    def _baseline(self) -> Iterator[str]:
        draft = self.draft
        yield "[baseline]"
        yield "# Your present settings: they are probed first and compared with the recommendation."
        settings: tuple[tuple[Role, float | None, float], ...] = (
            ("batch_size", draft.batch_size, _ANY_BATCH),
            ("learning_rate", draft.learning_rate, _ANY_RATE),
        )
        for role, number, any_value in settings:
            label = f"seen: {draft.stated(role)[1]}" if number is not None else "GUESS: the value is unknown"
            yield f"{role} = {number if number is not None else any_value!r}            # {_line(label)}"

    def _budget(self) -> Iterator[str]:
        yield "[budget]"
        if self.trial is not None and self.trial.exit_code is not None and self.reading is not None:
            minutes = max(math.ceil(10 * self.trial.seconds / 60), 2)
            yield f'time = "{minutes}m"            # GUESS: about ten times as long as the short run'
        else:
            yield 'time = "30m"            # GUESS: how long the search may take'


def goal_of(reading: Reading) -> Goal:
    """Chooses the section `[goal]` of a job file from the scores of a short run.

    The target is slightly worse than the best score. If no score is better than the first score, the target
    is a placeholder that is clearly better than the first score.

    Args:
        reading: Description of the scores: name and direction of the metric, and at least one value.
    """
    meaning, values = reading.meaning, reading.values
    metric, largest, is_percent = meaning.metric, max(values), False
    if metric in ("accuracy", "error_rate"):
        is_percent = reading.has_percent_sign or 1.0 < largest <= 100.0
        if largest > 100.0 or min(values) < 0.0:
            metric, is_percent = {"accuracy": "correct", "error_rate": "error"}[metric], False
    is_known = metric in ("accuracy", "error_rate", "loss", "bits_per_character")
    # After multiplication by this sign, larger scores are better.
    sign = 1.0 if meaning.direction == "maximize" else -1.0
    scores = [sign * value / (100.0 if is_percent else 1.0) for value in values]
    num_in_a_row = _NOISY_IN_A_ROW if _is_noisy(values) else 1
    windows = [scores[i : i + num_in_a_row] for i in range(max(len(scores) - num_in_a_row + 1, 1))]
    best = max(min(window) for window in windows)
    gained = abs(best - scores[0])
    if max(scores) == scores[0]:
        is_share = metric in ("accuracy", "error_rate") or 0.0 <= sign * best <= 1.0
        target = round(sign * _harder(best, is_share=is_share), 6)
    elif gained == 0.0:
        target = sign * best
    else:
        digits = max(-math.floor(math.log10(_MARGIN * gained)), 0)
        target = sign * math.floor((best - _MARGIN * gained) * 10.0**digits) / 10.0**digits
    return Goal(
        metric=metric,
        direction=None if is_known else meaning.direction,
        target=target,
        is_percent=is_percent,
        num_in_a_row=num_in_a_row,
    )


def _is_noisy(values: Sequence[float]) -> bool:
    """Whether consecutive scores often differ by large amounts, as the returns of single episodes do."""
    late = values[len(values) // 2 :]
    spread = max(values) - min(values)
    jumps = [abs(b - a) > _JUMP * spread for a, b in itertools.pairwise(late)]
    return len(jumps) >= _FEWEST_JUMPS and sum(jumps) >= _NOISY_SHARE * len(jumps)


def _harder(best: float, *, is_share: bool) -> float:
    """Returns a target that is clearly better than the best score.

    Args:
        best: Best score; negated if the metric is to be minimized.
        is_share: Whether the metric is a fraction between 0 and 1.
    """
    if best < 0.0:
        return 0.5 * best
    return best + 0.5 * (1.0 - best) if is_share else best + max(best, 1.0)


def _rounded(number: float) -> str:
    """Formats a number with one significant digit as a TOML float."""
    mantissa, _, exponent = f"{number:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _literal(pattern: str) -> str:
    """Formats a regular expression as a TOML string, without escapes if possible."""
    if pattern.isprintable() and "'" not in pattern:
        return f"'{pattern}'"
    if pattern.isprintable() and "'''" not in pattern and not pattern.endswith("'"):
        return f"'''{pattern}'''"
    return _string(pattern)


def _line(text: str) -> str:
    """Shortens a text to one line of at most 100 characters, without control characters."""
    plain = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return plain if len(plain) <= 100 else f"{plain[:97]}..."
