"""Finds the lines of a script's output that hold scores and positions, and writes patterns for them."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tuner.drafting.line_forms import BAR, Form, field_of, forms_of, position_of, repeats, rises
from tuner.drafting.line_patterns import pattern_of
from tuner.drafting.metric_names import Meaning, split_of
from tuner.drafting.readings import EpochSize, Reading


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A number of a form that may be the metric."""

    form: Form
    index: int
    meaning: Meaning
    rank: int


def read_output(lines: Sequence[str], batch_size: int | None) -> list[Reading]:
    """How to read the most telling score of what a script prints; empty if there is none.

    Args:
        lines: What it printed, without line ends.
        batch_size: Global batch size of the run; None if unknown.
    """
    if len(lines) > 2 * _MOST_LINES:
        lines = [*lines[:_MOST_LINES], *lines[-_MOST_LINES:]]
    forms = forms_of(lines)
    for form in forms:
        form.name_samples(batch_size)
    for candidate in sorted(_candidates(forms), key=lambda one: one.rank):
        reading = _reading(candidate, forms, lines, batch_size)
        if reading is not None:
            return [reading]
    return []


def epoch_samples_in(lines: Sequence[str]) -> EpochSize | None:
    """The size of the training set as a script prints it; None if it does not.

    Args:
        lines: What it printed.
    """
    ranked: list[tuple[int, int, str]] = []
    for text in lines[:_MOST_LINES]:
        if not _THING_WORDS.search(text):
            continue
        for pattern in _SIZES:
            found = pattern.search(text)
            if found is None or re.search(
                r"\b(val|valid|validation|test|eval|dev)\b", text[: found.end()], re.I
            ):
                continue
            size = int(found["size"].replace(",", "").replace("_", ""))
            if _LEAST_SIZE <= size <= _LARGEST_SIZE:
                is_training = bool(re.search("train", found[0], re.I))
                ranked.append((0 if is_training else 1, -size, text.strip()))
    if not ranked:
        return None
    _, size, text = min(ranked)
    return EpochSize(samples=-size, line=text, is_exact=True)


_LEAST_SIZE, _LARGEST_SIZE = 10, 10**12
#: Of longer output, so many lines at its beginning and at its end are searched.
_MOST_LINES = 15_000
#: Averages of an evaluation that goes on are preferred to scores of the training data alone.
_PARTIAL = 18
_SIZE = r"(?P<size>\d[\d,_]*)"
_THINGS = r"(?:samples|examples|images|instances|sequences|rows|points|records)"
_THING_WORDS = re.compile(r"train|sample|example|image|instance|sequence|row|point|record", re.I)
_SIZES = (
    re.compile(rf"\btrain\w*[^\d\n]{{0,30}}{_THINGS}\b[^\d\n]{{0,5}}[:=]\s*{_SIZE}\b", re.I),
    re.compile(rf"\b(?:num(?:ber of)?|#) *(?:train\w*)? *{_THINGS}\b\s*[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} (?:train\w* ){_THINGS}", re.I),
    re.compile(rf"\btrain\w* (?:set|data|dataset|size|split)\b[^\d\n]{{0,20}}[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} {_THINGS}\b(?!/|\s*per)", re.I),
)


def _candidates(forms: Sequence[Form]) -> list[_Candidate]:
    """Numbers that may be the metric, with how likely each is: a smaller rank is likelier."""
    evaluating = {i for form in forms if _is_evaluation_progress(form) for i, _, _ in form.lines}
    found = []
    for form in forms:
        for place, number in enumerate(form.lines[0][2]):
            index, meaning = place, number.meaning
            if meaning is None or meaning.field is not None:
                continue
            meaning = _with_split(meaning, form, evaluating)
            rank = meaning.rank
            if form.lines[0][0] in evaluating:
                rank += _PARTIAL
                index = _average_of(form, index)
            values = [value for value in form.column(index) if math.isfinite(value)]
            if len(set(values)) < 2 <= len(values) or (len(form.lines) == 1 and _has_better(form, forms)):
                rank += 5
            if not values:
                rank += 30
            position = any(one.meaning is not None and one.meaning.field for one in form.lines[0][2])
            rank += 0 if position else 1
            # Of scores that tell as much, the whole one before its parts, and the first before others.
            found.append(
                _Candidate(
                    form=form,
                    index=index,
                    meaning=meaning,
                    rank=10 * rank + min(index, 4) + 5 * meaning.is_part,
                )
            )
    return found


def _with_split(meaning: Meaning, form: Form, evaluating: Collection[int]) -> Meaning:
    """A score with the data that it is of, as far as its line and the line before show it.

    Args:
        meaning: What the number means.
        form: Its lines.
        evaluating: Lines that count the batches of an evaluation.
    """
    if _is_of_validation(meaning, form):
        return meaning.of("validation")
    if meaning.split != "unknown":
        return meaning
    if any(one.is_counter and one.total for one in form.lines[0][2]):
        # Lines that count the batches of an epoch are of the training.
        return meaning.of("training")
    # The summary behind the lines of an evaluation.
    follows = any(line - 1 in evaluating for line, _, _ in form.lines)
    return meaning.of("validation") if follows else meaning


def _is_of_validation(meaning: Meaning, form: Form) -> bool:
    """Whether a score without its data is of the validation: its line names both for another score alone.

    So is `accuracy` in a line with `train_loss`, `valid_loss` and `accuracy`, as fastai prints.
    """
    others = [one.meaning for one in form.lines[0][2] if one.meaning is not None and one.meaning.metric]
    named = {one.split for one in others if one.metric != meaning.metric}
    own = {one.split for one in others if one.metric == meaning.metric}
    return own == {"unknown"} and {"training", "validation"} <= named


def _average_of(form: Form, index: int) -> int:
    """The average so far in parentheses behind a number: `Acc@1: 12.3 (11.2)`; else the number itself."""
    _, text, numbers = form.lines[0]
    if index + 1 < len(numbers) and text[numbers[index].end : numbers[index + 1].start].strip() == "(":
        return index + 1
    return index


def _has_better(form: Form, forms: Sequence[Form]) -> bool:
    """Whether some other form with a score was printed more often."""
    return any(
        len(other.lines) > 1
        for other in forms
        if other is not form and any(n.meaning is not None and not n.meaning.field for n in other.lines[0][2])
    )


def _is_evaluation_progress(form: Form) -> bool:
    """Whether lines count the batches of an evaluation: they show averages so far, not results."""
    numbers = form.lines[0][2]
    text = form.lines[0][1]
    counters = [one.start for one in numbers if one.is_counter and one.total]
    is_evaluation = bool(counters) and split_of(text[: counters[0]]) in ("validation", "test")
    return is_evaluation and not any(
        one.meaning is not None and one.meaning.field == "epoch" and one.label for one in numbers
    )


def _reading(
    candidate: _Candidate, forms: Sequence[Form], lines: Sequence[str], batch_size: int | None
) -> Reading | None:
    """How to read a candidate; None if nothing says where in the training its values belong."""
    form = candidate.form
    if not any(math.isfinite(value) for value in form.column(candidate.index)):
        return None
    own = position_of(form)
    if len(own) > 1 and _counts_evaluation(form, own, forms):
        own = [index for index in own if field_of(form, index) == "epoch"]
    patterns: list[str] = []
    size: EpochSize | None = None
    if own:
        patterns = [pattern_of(form, [*own, candidate.index], own, candidate.index, lines)]
        fields = {field_of(form, i) for i in own}
        progress = _progress_form(form, own, forms)
        if progress is not None and "epoch" in fields:
            steps = position_of(progress, wants_steps=True)
            patterns.insert(0, pattern_of(progress, steps, steps, None, lines))
            fields |= {field_of(progress, i) for i in steps}
            if len(steps) > 1:
                size = size or _epoch_size(progress, steps, batch_size)
        size = size or _epoch_size(form, own, batch_size)
    else:
        other = _position_form(form, forms)
        if other is None:
            return None
        place = position_of(other, wants_steps=True)
        if _is_evaluation_progress(form):
            # Scores of one evaluation come many times: the last of each epoch counts.
            place = [index for index in place if field_of(other, index) == "epoch"] or place
        if not place:
            return None
        patterns = [
            pattern_of(other, place, place, None, lines),
            pattern_of(form, [candidate.index], [], candidate.index, lines),
        ]
        fields = {field_of(other, i) for i in place}
        size = _epoch_size(other, place, batch_size)
    if size is None and "epoch" in fields and batch_size is not None:
        size = _counted_epoch(form, own, forms, batch_size)
    texts = [text for _, text, _ in form.lines]
    label = form.lines[0][2][candidate.index].label or form.lines[0][2][candidate.index - 1].label
    percent = any(
        text[n[candidate.index].start : n[candidate.index].end].endswith("%") for _, text, n in form.lines
    )
    return Reading(
        source="output",
        meaning=candidate.meaning,
        label=label,
        values=tuple(value for value in form.column(candidate.index) if math.isfinite(value)),
        patterns=tuple(patterns),
        fields=frozenset(fields),
        has_percent_sign=percent,
        examples=(texts[0].strip(), *((texts[-1].strip(),) if len(texts) > 1 else ())),
        epoch_samples=size,
        rank=candidate.rank,
    )


def _counts_evaluation(form: Form, place: Sequence[int], forms: Sequence[Form]) -> bool:
    """Whether the steps of lines with scores count batches of the evaluation, not of the training."""
    index = next(i for i in place if field_of(form, i) != "epoch")
    if repeats(form, index):
        return True
    for other in forms:
        steps = [
            i for i in position_of(other, wants_steps=True) if field_of(other, i) == field_of(form, index)
        ]
        if other is form or not steps or split_of(other.lines[0][1]) in ("validation", "test"):
            continue
        behind = 0
        for line, _, numbers in form.lines:
            before = other.before(line)
            behind += before is not None and numbers[index].value < before[steps[0]].value
        if 2 * behind > len(form.lines):
            return True
    return False


def _position_form(form: Form, forms: Sequence[Form]) -> Form | None:
    """The form whose lines say where the scores of another form belong."""
    ranked = []
    for i, other in enumerate(forms):
        if other is form or _is_evaluation_progress(other):
            continue
        place = position_of(other, wants_steps=True)
        if not place or len(other.lines) < min(2, len(form.lines)):
            continue
        names = {field_of(other, index) for index in place}
        varies = any(len(set(other.column(index))) > 1 for index in place)
        ranked.append((not varies, "epoch" not in names, len(place) == 1 and len(other.lines) < 2, i))
    return forms[min(ranked)[-1]] if ranked else None


def _progress_form(form: Form, own: Sequence[int], forms: Sequence[Form]) -> Form | None:
    """Lines of training within an epoch, whose epoch is numbered as in `form`."""
    epochs = [i for i in own if field_of(form, i) == "epoch"]
    if not epochs or len(own) > 1:
        return None
    for other in forms:
        if other is form or len(other.lines) < 2 * len(form.lines) or _is_evaluation_progress(other):
            continue
        place = position_of(other, wants_steps=True)
        if len(place) != 2:
            continue
        epoch = next(i for i in place if field_of(other, i) == "epoch")
        agree = 0
        for line, _, numbers in form.lines:
            before = other.before(line)
            agree += before is not None and before[epoch].value == numbers[epochs[0]].value
        if agree == len(form.lines):
            return other
    return None


def _epoch_size(form: Form, place: Sequence[int], batch_size: int | None) -> EpochSize | None:
    """Samples of an epoch from a counter `a/b` within it, with the line it follows from."""
    _, text, numbers = form.lines[0]
    for i in place:
        total = numbers[i].total
        if total is not None and numbers[i].is_counter:
            if field_of(form, i) == "samples":
                return EpochSize(samples=int(total), line=text.strip(), is_exact=True)
            if field_of(form, i) == "step" and batch_size:
                return EpochSize(samples=int(total) * batch_size, line=text.strip(), is_exact=False)
    return None


def _counted_epoch(
    scored: Form, own: Sequence[int], forms: Sequence[Form], batch_size: int
) -> EpochSize | None:
    """Samples of an epoch from a progress bar that counts batches: those of an epoch, or of the training.

    Args:
        scored: The lines with scores.
        own: Their positions.
        forms: All lines.
        batch_size: Global batch size.
    """
    for form in forms:
        _, text, numbers = form.lines[0]
        if _is_evaluation_progress(form) or split_of(text) in ("validation", "test"):
            continue
        for index, number in enumerate(numbers):
            is_batches = number.is_counter and BAR.search(text) and (number.total or 0) > 1
            if not is_batches or (number.meaning and number.meaning.field == "epoch"):
                continue
            steps = number.total or 0
            if rises(form, index) and len(set(form.column(index))) > 1:
                steps = _steps_of_epoch(scored, own, form, index) or steps
            size = round(steps) * batch_size
            return EpochSize(samples=size, line=text.strip(), is_exact=False)
    return None


def _steps_of_epoch(scored: Form, own: Sequence[int], form: Form, index: int) -> float | None:
    """Batches of an epoch by a bar that counts through the training, at lines that name the epoch."""
    epoch = next((i for i in own if field_of(scored, i) == "epoch"), None)
    if epoch is None:
        return None
    found = []
    for line, _, numbers in scored.lines:
        counted = form.before(line)
        if counted is not None and numbers[epoch].value >= 1:
            found.append(counted[index].value / numbers[epoch].value)
    return statistics.median(found) if found else None
