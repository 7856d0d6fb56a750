"""Groups output lines that differ only in their numbers, and recognizes the meaning of these numbers.

Such lines have the same form. For example, `epoch 1 loss 0.5` and `epoch 2 loss 0.4` have the same form.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tuner.drafting.metric_names import Field, Meaning, Split, meaning_of, split_of, words_of
from tuner.probes.commands.progress_line import ANSI

#: Matches text by which a progress bar is recognized.
BAR = re.compile(r"\d+%\||[█▏▎▍▌▋▊▉#━=>]{3,}|\|\s*\d+/\d+\s*\[|\bit/s|s/it|/step\b")
_MOST_LENGTH = 2_000
#: Matches dates, times of day and durations, whose numbers are ignored.
_TIMES = re.compile(
    r"\d{4}[-/]\d{2}[-/]\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:[.,]\d+)?)?|\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?"
)
_NUMBER = re.compile(
    r"(?<![\w.@])(?<![A-Za-z]-)[-+]?(?:\d+(?:,\d{3})+|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
    r"(?P<unit>%|[a-zµ]{1,7}(?:/\w+)?\b|(?![\w]))|(?<![\w.])(?:nan|inf)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?:[A-Za-z_][\w@./\-]*['\"]?[ _#]*){1,4}$")
_LONGEST_LABEL = 80
#: Matches words; a line that contains a word is not a row of a table of numbers.
_WORDS = re.compile(r"(?!nan|inf)[A-Za-z]{3,}", re.IGNORECASE)
#: Largest number of groups of lines; lines that would need another group are ignored.
_MOST_FORMS = 2_000
#: Usual numbers of steps between two progress lines. A counter that rises by such a number is assumed to
#: count steps, not samples.
_USUAL_INTERVALS = {1, 2, 5, 10, 20, 25, 30, 50, 100, 200, 250, 500, 1000}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number in a line of output.

    Args:
        start: Index of the first character of the number in the line.
        end: Index in the line after the last character of the number.
        value: Value of the number.
        label_start: Index of the first character of the label in the line.
        label: Words before the number, which describe it, such as `val loss`.
        meaning: The metric or measure of training progress that the number is a value of; None if unknown.
        total: For the number `a` in text such as `a/b`, the value of `b`; otherwise None.
        is_counter: Whether the number counts batches or samples within an epoch, as `100` in `100/1251`.
    """

    start: int
    end: int
    value: float
    label_start: int
    label: str
    meaning: Meaning | None = None
    total: float | None = None
    is_counter: bool = False

    @property
    def field(self) -> Field | None:
        """Measure of training progress (`epoch`, `step` or `samples`); None if the number is none of them."""
        return None if self.meaning is None else self.meaning.field

    @property
    def is_score(self) -> bool:
        """Whether the number is the value of a metric."""
        return self.meaning is not None and self.meaning.field is None


@dataclass(kw_only=True)
class Form:
    """A group of output lines that are equal except for their numbers.

    Args:
        lines: For each line of the group, in order: its index in the output, its text, and its numbers.
    """

    lines: list[tuple[int, str, list[Number]]] = dataclasses.field(default_factory=list)

    @property
    def text(self) -> str:
        """Text of the first line."""
        return self.lines[0][1]

    @property
    def numbers(self) -> list[Number]:
        """The numbers of the first line."""
        return self.lines[0][2]

    def column(self, index: int) -> list[float]:
        """Returns the values of one number in all lines of the group.

        Args:
            index: Index of the number in each line, from 0.
        """
        return [numbers[index].value for _, _, numbers in self.lines]

    def before(self, line: int) -> list[Number] | None:
        """Returns the numbers of the last line of this group before a given output line.

        Args:
            line: Index of the output line, which need not belong to the group.

        Returns:
            The numbers; None if no line of the group comes before.
        """
        place = bisect.bisect_left(self.lines, line, key=lambda one: one[0])
        return self.lines[place - 1][2] if place else None

    def name_samples(self, batch_size: int | None) -> None:
        """Finds the numbers in these lines that count samples, not batches, and stores this meaning.

        Args:
            batch_size: Global batch size of the run; None if unknown.
        """
        for index, number in enumerate(self.numbers):
            if number.is_counter and number.meaning and _counts_samples(self.column(index), batch_size):
                for _, _, numbers in self.lines:
                    numbers[index] = replace(numbers[index], meaning=Meaning(field="samples"))


def plain_line(line: str) -> str:
    """Returns a line of output without color codes, shortened if it is very long."""
    return ANSI.sub("", line)[:_MOST_LENGTH]


def forms_of(lines: Sequence[str]) -> list[Form]:
    """Groups the lines that contain numbers: lines that differ only in their numbers are in one group.

    Args:
        lines: Lines of the script's output.

    Returns:
        The groups, in the order of their first lines.
    """
    forms: dict[str, Form] = {}
    columns: list[str] = []
    for i, raw in enumerate(lines):
        text = plain_line(raw)
        numbers = _numbers(text)
        if not numbers:
            columns = _columns(text) or columns
            continue
        numbers = _named_by_columns(text, numbers, columns)
        form = re.sub(r"\s+", " ", _NUMBER.sub("#", _hide_times(text))).strip()
        form = re.sub(r"[█▏▎▍▌▋▊▉━=>.]{3,}", "", form) if BAR.search(text) else form
        key = f"{form} {len(numbers)}"
        if key in forms or len(forms) < _MOST_FORMS:
            forms.setdefault(key, Form()).lines.append((i, text, numbers))
    return list(forms.values())


def _columns(text: str) -> list[str]:
    """Returns the column names if a line is the header of a table with scores; otherwise an empty list.

    Such a header contains the name of a metric and of a measure of training progress.
    """
    words = [word for word in re.split(r"[\s|]+", text) if word]
    meanings = [one for word in words if (one := meaning_of(word)) is not None]
    return words if any(one.field for one in meanings) and any(one.metric for one in meanings) else []


def _named_by_columns(text: str, numbers: list[Number], columns: Sequence[str]) -> list[Number]:
    """Uses column names as the labels of the numbers in a line if the line is a row of a table.

    Returns the numbers with these labels, or unchanged if the line is not such a row.

    Args:
        text: The line.
        numbers: The numbers in the line.
        columns: Names of the columns in the last header of a table; empty if there was no table.
    """
    cells = list(re.finditer(r"[^\s|]+", text))
    if len(cells) != len(columns) or _WORDS.search(_hide_times(text).replace("T", "")):
        return numbers
    named = {cell.start(): column for cell, column in zip(cells, columns, strict=True)}
    return [
        replace(number, label=named[number.start], meaning=meaning_of(named[number.start]))
        if number.start in named
        else number
        for number in numbers
    ]


def _hide_times(text: str) -> str:
    return _TIMES.sub(lambda found: "T" * len(found[0]), text)


def _numbers(text: str) -> list[Number]:
    """Finds the numbers in a line, with their labels and meanings."""
    hidden = _hide_times(text)
    found: list[Number] = []
    context: Split | None = None
    end = 0
    for match in _NUMBER.finditer(hidden):
        gap = text[end : match.start()]
        # Treat `Epoch(val) [3]` like `Epoch val [3]`.
        front = re.sub(r"[()]", " ", gap).rstrip(" \t:=[<\"'|,;")
        at = end + max(len(front) - _LONGEST_LABEL, 0)
        front = front[-_LONGEST_LABEL:]
        label = _LABEL.search(front)
        words = label[0].strip() if label is not None else ""
        context = split_of(gap) or context
        number = Number(
            start=match.start(),
            end=match.end(),
            value=_value(match[0]),
            label_start=at + label.start() if label is not None else match.start(),
            label=words,
            meaning=None if (match["unit"] or "%") != "%" else meaning_of(words, context),
        )
        found.append(_in_line(number, gap, found, text))
        end = match.end()
    return _with_totals(found, text)


def _in_line(number: Number, gap: str, before: Sequence[Number], text: str) -> Number:
    """Sets the meaning of a number that has no label, from its place in the line.

    For example, the 10 in `[10] valid auc: 0.9` is the number of steps.

    Args:
        number: The number.
        gap: Text between this number and the number before it.
        before: The numbers before this one in the line.
        text: The line.
    """
    if number.label or not (before or number.start <= 3):
        return number
    opening = gap.strip()
    if not before and text.lstrip().startswith("["):
        # Boosting libraries print lines such as `[10]  valid_0's auc: 0.93`.
        return replace(number, meaning=Meaning(field="step"))
    if before and opening in ("][", "[", ",[") and before[-1].field == "epoch":
        return replace(number, meaning=Meaning(field="step"), is_counter=True)
    return number


def _with_totals(numbers: list[Number], text: str) -> list[Number]:
    """Replaces each pair of numbers that is printed as `a/b` by one number with the value a and the total b.

    Args:
        numbers: The numbers in the line, in order.
        text: The line.
    """
    found: list[Number] = []
    i = 0
    while i < len(numbers):
        number = numbers[i]
        if i + 1 < len(numbers):
            gap = text[number.end : numbers[i + 1].start].strip()
            if gap in ("/", "of") and numbers[i + 1].value >= number.value:
                number = replace(number, total=numbers[i + 1].value)
                if number.is_score:
                    number, numbers[i + 1 :] = _of_total(number, numbers[i + 1 :], text)
                number = _counter(number, found)
        found.append(number)
        i += 1
    # The library timm prints lines such as `Train: 3 [ 100/1251 ( 8%)]`, with epoch and step.
    for i, number in enumerate(found[:-1]):
        opens = text[number.end : found[i + 1].start].strip() == "["
        if opens and number.meaning is None and split_of(number.label) == "training":
            found[i] = replace(number, meaning=Meaning(field="epoch"))
            found[i + 1] = replace(found[i + 1], meaning=Meaning(field="step"), is_counter=True)
    return found


def _counter(number: Number, before: Sequence[Number]) -> Number:
    """Returns the number `a` of the text `a/b` as a counter of batches, unless it has another meaning.

    Args:
        number: The number.
        before: The numbers before this one in the line.
    """
    is_plain = not words_of(number.label)
    if number.meaning is not None or not (is_plain or split_of(number.label) in ("validation", "test")):
        return number
    in_epoch = is_plain and any(one.field == "epoch" for one in before)
    return replace(number, is_counter=True, meaning=Meaning(field="step") if in_epoch else None)


def _of_total(number: Number, others: list[Number], text: str) -> tuple[Number, list[Number]]:
    """Finds the metric in text such as `Accuracy: 9003/10000 (90%)`.

    The metric is the percentage if it is printed, otherwise the number of correct predictions.

    Args:
        number: The first number, such as 9003.
        others: All later numbers in the line, such as 10000 and 90.
        text: The line.

    Returns:
        The first number and the later numbers, with the meaning set for the metric.
    """
    meaning = number.meaning
    assert meaning is not None
    if (
        len(others) > 1
        and text[others[0].end : others[1].start].strip() in ("(", "=", "= (", ":", "or")
        and text[others[1].end - 1] == "%"
    ):
        percent = replace(others[1], meaning=meaning, label=number.label)
        return replace(number, meaning=None), [others[0], percent, *others[2:]]
    return replace(number, meaning=replace(meaning, metric="correct")), others


def _value(text: str) -> float:
    try:
        return float(re.sub(r"[%a-zµ/]+$", "", text.replace(",", ""), flags=re.I) or text)
    except ValueError:
        return math.nan


def _counts_samples(values: Sequence[float], batch_size: int | None) -> bool:
    """Whether a counter counts samples: it mostly rises by multiples of the batch size.

    A counter that rises by a number in `_USUAL_INTERVALS` probably counts steps.

    Args:
        values: Values of the counter, in the order of the output.
        batch_size: Batch size over all ranks; None if unknown.
    """
    jumps = {b - a for a, b in itertools.pairwise(values) if b > a}
    # The last batch of an epoch may be smaller.
    common = [jump for jump in jumps if jump % (batch_size or 1) == 0]
    return bool(batch_size and batch_size > 1 and common and min(jumps) not in _USUAL_INTERVALS) and 2 * len(
        common
    ) >= len(jumps)


def position_of(form: Form, *, wants_steps: bool = False) -> list[int]:
    """Returns the indices of the numbers that together measure training progress: epoch, step or samples.

    Args:
        form: A group of lines that differ only in their numbers.
        wants_steps: Whether to return epoch and step within the epoch even if the group has only one line.
    """
    numbers = form.numbers
    places: dict[str, int] = {}
    for i, number in enumerate(numbers):
        if number.field is not None:
            places.setdefault(number.field, i)
    if "samples" in places:
        is_whole = not numbers[places["samples"]].is_counter and rises(form, places["samples"])
        if is_whole and len(set(form.column(places["samples"]))) > 1:
            return [places["samples"]]
        if numbers[places["samples"]].is_counter and "epoch" in places:
            return sorted((places["epoch"], places["samples"]))
    if "step" in places:
        restarts = numbers[places["step"]].is_counter or not rises(form, places["step"])
        if not restarts and not repeats(form, places["step"]):
            return [places["step"]]
        if "epoch" in places and (wants_steps or len(form.lines) > 1):
            return sorted((places["epoch"], places["step"]))
        if "epoch" not in places:
            return []
    return [places["epoch"]] if "epoch" in places else []


def rises(form: Form, index: int) -> bool:
    """Whether the number at `index` never decreases from one line of the group to the next."""
    values = form.column(index)
    return all(a <= b for a, b in itertools.pairwise(values))


def repeats(form: Form, index: int) -> bool:
    """Whether the number at `index` is the same in all lines, such as the last step of each epoch."""
    values = form.column(index)
    return len(values) > 1 and len(set(values)) == 1
