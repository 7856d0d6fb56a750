"""Finds scores and training progress in the output of a script, and writes patterns that read them.

In this module, a form is a group of output lines that differ only in their numbers.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from tuner.drafting.line_forms import BAR, Form, forms_of, position_of, repeats, rises
from tuner.drafting.line_patterns import pattern_of
from tuner.drafting.metric_names import Meaning, split_of
from tuner.drafting.readings import EpochSize, Reading


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A number that may be the metric of the job, in lines that differ only in their numbers.

    Args:
        form: The group of lines that contain the number.
        index: Index of the number in each line, from 0.
        meaning: Name and direction of the metric, and the data split on which it is measured.
        rank: Preference among several candidates; the candidate with the smallest number is preferred.
    """

    form: Form
    index: int
    meaning: Meaning
    rank: int


def read_output(lines: Sequence[str], batch_size: int | None) -> list[Reading]:
    """Finds the scores in the output of a script.

    Args:
        lines: Lines of the output.
        batch_size: Batch size over all ranks in the short run; None if unknown.

    Returns:
        A list with a description of how to read the likeliest score; empty if the output contains no score.
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
    """Finds the size of the training set in the output of a script; None if the script does not print it.

    Args:
        lines: Lines of the output.
    """
    ranked: list[tuple[int, int, str]] = []
    for text in lines[:_MOST_LINES]:
        if not _THING_WORDS.search(text):
            continue
        for pattern in _SIZES:
            found = pattern.search(text)
            if found is None or _EVALUATION.search(text[: found.end()]):
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
#: Number of lines at the start and at the end of the output that are searched.
_MOST_LINES = 15_000
#: This number is added to the rank of running averages that are printed during an evaluation. Since the score
#: with the smallest rank is chosen, the final score of the evaluation is preferred to its running averages.
_PARTIAL = 18
_SIZE = r"(?P<size>\d[\d,_]*)"
_THINGS = r"(?:samples|examples|images|instances|sequences|rows|points|records)"
_EVALUATION = re.compile(r"\b(val|valid|validation|test|eval|dev)\b", re.I)
_THING_WORDS = re.compile(r"train|sample|example|image|instance|sequence|row|point|record", re.I)
_SIZES = (
    re.compile(rf"\btrain\w*[^\d\n]{{0,30}}{_THINGS}\b[^\d\n]{{0,5}}[:=]\s*{_SIZE}\b", re.I),
    re.compile(rf"\b(?:num(?:ber of)?|#) *(?:train\w*)? *{_THINGS}\b\s*[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} (?:train\w* ){_THINGS}", re.I),
    re.compile(rf"\btrain\w* (?:set|data|dataset|size|split)\b[^\d\n]{{0,20}}[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} {_THINGS}\b(?!/|\s*per)", re.I),
)


def _candidates(forms: Sequence[Form]) -> Iterator[_Candidate]:
    """Yields the numbers in the output that may be the metric, with their ranks (smaller is preferred)."""
    evaluating = {i for form in forms if _is_evaluation_progress(form) for i, _, _ in form.lines}
    for form in forms:
        for place, number in enumerate(form.numbers):
            if number.meaning is None or not number.is_score:
                continue
            meaning, index = _with_split(number.meaning, form, evaluating), place
            rank = meaning.rank
            if form.lines[0][0] in evaluating:
                rank += _PARTIAL
                index = _average_of(form, place)
            values = [value for value in form.column(index) if math.isfinite(value)]
            if len(set(values)) < 2 <= len(values) or (len(form.lines) == 1 and _has_better(form, forms)):
                rank += 5
            if not values:
                rank += 30
            rank += 0 if any(one.field for one in form.numbers) else 1
            # Of equal ranks, prefer metrics such as `loss` to parts such as `kl_loss`, and earlier numbers.
            rank = 10 * rank + min(index, 4) + 5 * meaning.is_part
            yield _Candidate(form=form, index=index, meaning=meaning, rank=rank)


def _with_split(meaning: Meaning, form: Form, evaluating: Collection[int]) -> Meaning:
    """Finds the data split (such as validation) of a score from its line and the preceding line.

    Args:
        meaning: Meaning of the score, from its own name.
        form: Lines that contain the score, and differ only in their numbers.
        evaluating: Indices of the output lines that count the batches of an evaluation.

    Returns:
        The meaning with the data split, if it can be determined; else the same meaning.
    """
    # In `train_loss ... valid_loss ... accuracy`, as fastai prints, the accuracy is of the validation data.
    others = [one.meaning for one in form.numbers if one.meaning is not None and one.is_score]
    named = {one.split for one in others if one.metric != meaning.metric}
    own = {one.split for one in others if one.metric == meaning.metric}
    if own == {"unknown"} and {"training", "validation"} <= named:
        return meaning.of("validation")
    if meaning.split != "unknown":
        return meaning
    if any(one.is_counter and one.total for one in form.numbers):
        # Lines that count the batches of an epoch show training scores.
        return meaning.of("training")
    # A line directly after the lines of an evaluation is its summary.
    follows = any(line - 1 in evaluating for line, _, _ in form.lines)
    return meaning.of("validation") if follows else meaning


def _average_of(form: Form, index: int) -> int:
    """Returns the index of the average that is printed after a number, as in `Acc@1: 12.3 (11.2)`.

    Args:
        form: Lines that contain the number.
        index: Index of the number in the line.

    Returns:
        The index of the average; if no average is printed, the index of the number itself.
    """
    after = form.numbers[index + 1 : index + 2]
    is_average = after and form.text[form.numbers[index].end : after[0].start].strip() == "("
    return index + 1 if is_average else index


def _has_better(form: Form, forms: Sequence[Form]) -> bool:
    """Whether a group of lines other than `form` is preferred: it has a score and more than one line."""
    others = (other for other in forms if other is not form and len(other.lines) > 1)
    return any(one.is_score for other in others for one in other.numbers)


def _is_evaluation_progress(form: Form) -> bool:
    """Whether lines count the batches of an evaluation, so the scores in them are running averages."""
    counters = [one.start for one in form.numbers if one.is_counter and one.total]
    is_evaluation = bool(counters) and split_of(form.text[: counters[0]]) in ("validation", "test")
    return is_evaluation and not any(one.field == "epoch" and one.label for one in form.numbers)


def _reading(
    candidate: _Candidate, forms: Sequence[Form], lines: Sequence[str], batch_size: int | None
) -> Reading | None:
    """Describes how to read the scores of a candidate for the metric.

    Args:
        candidate: The number that may be the metric.
        forms: All groups of output lines that differ only in their numbers; a group may show the training
            progress for the scores.
        lines: All lines of the output, on which the patterns are tested.
        batch_size: Batch size over all ranks, to compute the size of the training set; None if unknown.

    Returns:
        The description; None if no value is finite or no line shows the training progress for the scores.
    """
    form, index = candidate.form, candidate.index
    values = tuple(value for value in form.column(index) if math.isfinite(value))
    own = position_of(form)
    if len(own) > 1 and _counts_evaluation(form, own, forms):
        own = [i for i in own if form.numbers[i].field == "epoch"]
    if own:
        place_form, place = form, own
        patterns = [pattern_of(form, [*own, index], own, index, lines)]
        fields = {form.numbers[i].field for i in own}
        progress = _progress_form(form, own, forms)
        if progress is not None:
            place_form, place = progress, position_of(progress, wants_steps=True)
            patterns.insert(0, pattern_of(progress, place, place, None, lines))
    else:
        found = _position_form(form, forms)
        if found is None:
            return None
        place_form, place = found, position_of(found, wants_steps=True)
        if _is_evaluation_progress(form):
            # One evaluation prints many running averages; the last one of each epoch is the score.
            place = [i for i in place if found.numbers[i].field == "epoch"] or place
        patterns = [
            pattern_of(found, place, place, None, lines),
            pattern_of(form, [index], [], index, lines),
        ]
        fields = set()
    if not values:
        return None
    fields |= {place_form.numbers[i].field for i in place}
    size = _epoch_size(place_form, place, batch_size) or _epoch_size(form, own, batch_size)
    if size is None and "epoch" in fields and batch_size is not None:
        size = _counted_epoch(form, own, forms, batch_size)
    texts = [text.strip() for _, text, _ in form.lines]
    return Reading(
        source="output",
        meaning=candidate.meaning,
        label=form.numbers[index].label or form.numbers[index - 1].label,
        values=values,
        patterns=tuple(patterns),
        fields=frozenset(str(field) for field in fields),
        has_percent_sign=any(text[: n[index].end].endswith("%") for _, text, n in form.lines),
        examples=(texts[0], *texts[1:][-1:]),
        epoch_samples=size,
        rank=candidate.rank,
    )


def _counts_evaluation(form: Form, place: Sequence[int], forms: Sequence[Form]) -> bool:
    """Whether the steps in lines with scores count the batches of the evaluation, not those of the training.

    Args:
        form: Lines with scores.
        place: Indices of the numbers in these lines that measure training progress.
        forms: All groups of output lines that differ only in their numbers; the steps are compared with those
            of other groups.
    """
    index = next(i for i in place if form.numbers[i].field != "epoch")
    if repeats(form, index):
        return True
    for other in forms:
        steps = [
            i
            for i in position_of(other, wants_steps=True)
            if other.numbers[i].field == form.numbers[index].field
        ]
        if other is form or not steps or split_of(other.text) in ("validation", "test"):
            continue
        behind = 0
        for line, _, numbers in form.lines:
            before = other.before(line)
            behind += before is not None and numbers[index].value < before[steps[0]].value
        if 2 * behind > len(form.lines):
            return True
    return False


def _position_form(form: Form, forms: Sequence[Form]) -> Form | None:
    """Returns the lines that show the training progress, if the lines with scores do not show it.

    Args:
        form: Lines with scores.
        forms: All groups of output lines that differ only in their numbers, which are searched.

    Returns:
        The group of lines; None if no group shows the training progress.
    """
    ranked = []
    for i, other in enumerate(forms):
        if other is form or _is_evaluation_progress(other):
            continue
        place = position_of(other, wants_steps=True)
        if not place or len(other.lines) < min(2, len(form.lines)):
            continue
        has_epoch = any(other.numbers[index].field == "epoch" for index in place)
        varies = any(len(set(other.column(index))) > 1 for index in place)
        ranked.append((not varies, not has_epoch, len(place) == 1 and len(other.lines) < 2, i))
    return forms[min(ranked)[-1]] if ranked else None


def _progress_form(form: Form, own: Sequence[int], forms: Sequence[Form]) -> Form | None:
    """Returns the lines that show the steps within each epoch, if lines with scores show only the epoch.

    Args:
        form: Lines with scores.
        own: Indices of the numbers in these lines that measure training progress.
        forms: All groups of output lines that differ only in their numbers, which are searched.

    Returns:
        The group of lines; None if the lines with scores show more than the epoch, or if there is no such
        group.
    """
    if len(own) != 1 or form.numbers[own[0]].field != "epoch":
        return None
    for other in forms:
        if other is form or len(other.lines) < 2 * len(form.lines) or _is_evaluation_progress(other):
            continue
        place = position_of(other, wants_steps=True)
        if len(place) != 2:
            continue
        epoch = next(i for i in place if other.numbers[i].field == "epoch")
        pairs = [(other.before(line), numbers[own[0]].value) for line, _, numbers in form.lines]
        if all(before is not None and before[epoch].value == value for before, value in pairs):
            return other
    return None


def _epoch_size(form: Form, place: Sequence[int], batch_size: int | None) -> EpochSize | None:
    """Computes the number of samples per epoch from a counter such as `100/1251` of samples or batches.

    Args:
        form: Lines that may contain such a counter.
        place: Indices of the numbers that measure training progress.
        batch_size: Batch size over all ranks; None if unknown, so only a counter of samples is used.
    """
    for number in (form.numbers[i] for i in place):
        factor = {"samples": 1, "step": batch_size or 0}.get(number.field or "", 0)
        if number.total is not None and number.is_counter and factor:
            size = int(number.total) * factor
            return EpochSize(samples=size, line=form.text.strip(), is_exact=number.field == "samples")
    return None


def _counted_epoch(
    scored: Form, own: Sequence[int], forms: Sequence[Form], batch_size: int
) -> EpochSize | None:
    """Computes the number of samples per epoch from a progress bar that counts batches.

    Args:
        scored: Lines with scores.
        own: Indices of the numbers in these lines that measure training progress.
        forms: All groups of output lines that differ only in their numbers; the progress bar is searched
            among them.
        batch_size: Batch size over all ranks, by which the number of batches is multiplied.
    """
    for form in forms:
        if _is_evaluation_progress(form) or split_of(form.text) in ("validation", "test"):
            continue
        for index, number in enumerate(form.numbers):
            steps = number.total or 0
            if not number.is_counter or steps <= 1 or number.field == "epoch" or not BAR.search(form.text):
                continue
            if rises(form, index) and len(set(form.column(index))) > 1:
                steps = _steps_of_epoch(scored, own, form, index) or steps
            return EpochSize(samples=round(steps) * batch_size, line=form.text.strip(), is_exact=False)
    return None


def _steps_of_epoch(scored: Form, own: Sequence[int], form: Form, index: int) -> float | None:
    """Computes the number of batches per epoch from a progress bar that counts the batches of all epochs.

    Args:
        scored: Lines with scores, which show the epoch.
        own: Indices of the numbers in these lines that measure training progress.
        form: Lines with the progress bar.
        index: Index of the number of batches in the lines with the progress bar.

    Returns:
        The median of batches divided by epochs; None if no line shows an epoch of at least 1.
    """
    found = []
    for epoch in [i for i in own if scored.numbers[i].field == "epoch"][:1]:
        for line, _, numbers in scored.lines:
            counted = form.before(line)
            if counted is not None and numbers[epoch].value >= 1:
                found.append(counted[index].value / numbers[epoch].value)
    return statistics.median(found) if found else None
