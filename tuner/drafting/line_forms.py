"""Lines of a script's output by their form, and what the numbers in them mean."""

from __future__ import annotations

import bisect
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tuner.drafting.metric_names import Meaning, Split, meaning_of, split_of, words_of
from tuner.probes.commands.progress_line import ANSI

#: What progress bars are drawn of.
BAR = re.compile(r"\d+%\||[█▏▎▍▌▋▊▉#━=>]{3,}|\|\s*\d+/\d+\s*\[|\bit/s|s/it|/step\b")
_MOST_LENGTH = 2_000
#: Dates, times of day and durations: none of their numbers is a position or a score.
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
#: What a row of a table does not have.
_WORDS = re.compile(r"(?!nan|inf)[A-Za-z]{3,}", re.IGNORECASE)
#: A script that prints lines of more forms than this is not understood further.
_MOST_FORMS = 2_000
#: Steps between two lines of progress, as scripts have them by default.
_USUAL_INTERVALS = {1, 2, 5, 10, 20, 25, 30, 50, 100, 200, 250, 500, 1000}


@dataclass(frozen=True, kw_only=True)
class Number:
    """A number of a line: where it stands, its label, and what it means."""

    start: int
    end: int
    value: float
    label_start: int
    label: str
    meaning: Meaning | None = None
    total: float | None = None
    is_counter: bool = False


@dataclass(kw_only=True)
class Form:
    """Lines that differ in their numbers only."""

    lines: list[tuple[int, str, list[Number]]] = field(default_factory=list)

    def column(self, index: int) -> list[float]:
        return [numbers[index].value for _, _, numbers in self.lines]

    def before(self, line: int) -> list[Number] | None:
        """The numbers of the last line of this form before a line; None if there is none."""
        place = bisect.bisect_left(self.lines, line, key=lambda one: one[0])
        return self.lines[place - 1][2] if place else None

    def name_samples(self, batch_size: int | None) -> None:
        """Tells counters of samples from counters of batches."""
        for index, number in enumerate(self.lines[0][2]):
            if number.is_counter and number.meaning and _counts_samples(self.column(index), batch_size):
                for _, _, numbers in self.lines:
                    numbers[index] = _with(numbers[index], meaning=Meaning(field="samples"))


def plain_line(line: str) -> str:
    """A printed line without colors, cut where it is very long."""
    return ANSI.sub("", line)[:_MOST_LENGTH]


def forms_of(lines: Sequence[str]) -> list[Form]:
    """Lines with numbers in them, by their form, in the order of each form's first line.

    Args:
        lines: What the script printed.
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
    """The names in the header of a table; empty if a line is none: it needs an epoch or step, and a score."""
    words = [word for word in re.split(r"[\s|]+", text) if word]
    meanings = [meaning_of(word) for word in words]
    has_place = any(one is not None and one.field for one in meanings)
    return words if has_place and any(one is not None and one.metric for one in meanings) else []


def _named_by_columns(text: str, numbers: list[Number], columns: Sequence[str]) -> list[Number]:
    """The numbers of a table's row with the names of its columns; any other line is left as it is."""
    cells = list(re.finditer(r"[^\s|]+", text))
    if len(cells) != len(columns) or _WORDS.search(_hide_times(text).replace("T", "")):
        return numbers
    named = {cell.start(): column for cell, column in zip(cells, columns, strict=True)}
    return [
        _with(number, label=named[number.start], meaning=meaning_of(named[number.start]))
        if number.start in named
        else number
        for number in numbers
    ]


def _hide_times(text: str) -> str:
    return _TIMES.sub(lambda found: "T" * len(found[0]), text)


def _numbers(text: str) -> list[Number]:
    """The numbers of a line with their meanings."""
    hidden = _hide_times(text)
    found: list[Number] = []
    context: Split | None = None
    end = 0
    for match in _NUMBER.finditer(hidden):
        gap = text[end : match.start()]
        # `Epoch(val) [3]` has the words of `Epoch val [3]`.
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
    """A number whose meaning follows from its place: counters of batches, and averages in parentheses."""
    if number.label or not (before or number.start <= 3):
        return number
    opening = gap.strip()
    if not before and text.lstrip().startswith("["):
        # `[10]  valid_0's auc: 0.93`, as boosting libraries print.
        return _with(number, meaning=Meaning(field="step"))
    if before and opening in ("][", "[", ",[") and before[-1].meaning == Meaning(field="epoch"):
        return _with(number, meaning=Meaning(field="step"), is_counter=True)
    return number


def _with_totals(numbers: list[Number], text: str) -> list[Number]:
    """Numbers `a/b`: the second is the first one's total."""
    found: list[Number] = []
    i = 0
    while i < len(numbers):
        number = numbers[i]
        if i + 1 < len(numbers):
            gap = text[number.end : numbers[i + 1].start].strip()
            if gap in ("/", "of") and numbers[i + 1].value >= number.value:
                number = _with(number, total=numbers[i + 1].value)
                if number.meaning is not None and number.meaning.metric:
                    number, numbers[i + 1 :] = _of_total(number, numbers[i + 1 :], text)
                number = _counter(number, found)
        found.append(number)
        i += 1
    # timm: `Train: 3 [ 100/1251 ( 8%)]`.
    for i, number in enumerate(found[:-1]):
        opens = text[number.end : found[i + 1].start].strip() == "["
        if opens and number.meaning is None and split_of(number.label) == "training":
            found[i] = _with(number, meaning=Meaning(field="epoch"))
            found[i + 1] = _with(found[i + 1], meaning=Meaning(field="step"), is_counter=True)
    return found


def _counter(number: Number, before: Sequence[Number]) -> Number:
    """A number `a/b` without a meaning of its own counts batches, of an epoch if one was named before."""
    is_plain = not words_of(number.label)
    if number.meaning is not None or not (is_plain or split_of(number.label) in ("validation", "test")):
        return number
    in_epoch = is_plain and any(one.meaning == Meaning(field="epoch") for one in before)
    return _with(number, is_counter=True, meaning=Meaning(field="step") if in_epoch else None)


def _of_total(number: Number, others: list[Number], text: str) -> tuple[Number, list[Number]]:
    """`Accuracy: 9003/10000 (90%)` is the percentage; without one it is a count of right answers."""
    meaning = number.meaning
    assert meaning is not None
    if (
        len(others) > 1
        and text[others[0].end : others[1].start].strip() in ("(", "=", "= (", ":", "or")
        and text[others[1].end - 1] == "%"
    ):
        percent = _with(others[1], meaning=meaning, label=number.label)
        return _with(number, meaning=None), [others[0], percent, *others[2:]]
    return _with(number, meaning=replace(meaning, metric="correct")), others


def _with(number: Number, **changes: object) -> Number:
    return replace(number, **changes)  # type: ignore[arg-type]


def _value(text: str) -> float:
    try:
        return float(re.sub(r"[%a-zµ/]+$", "", text.replace(",", ""), flags=re.I) or text)
    except ValueError:
        return math.nan


def _counts_samples(values: Sequence[float], batch_size: int | None) -> bool:
    """Whether a counter counts samples: it rises by multiples of the batch size, in no usual interval."""
    jumps = {b - a for a, b in itertools.pairwise(values) if b > a}
    # The last batch of an epoch is smaller than the others.
    common = [jump for jump in jumps if jump % (batch_size or 1) == 0]
    return bool(batch_size and batch_size > 1 and common and min(jumps) not in _USUAL_INTERVALS) and 2 * len(
        common
    ) >= len(jumps)


def field_of(form: Form, index: int) -> str:
    """Which position a number is: `epoch`, `step` or `samples`."""
    meaning = form.lines[0][2][index].meaning
    assert meaning is not None
    assert meaning.field is not None
    return meaning.field


def position_of(form: Form, *, wants_steps: bool = False) -> list[int]:
    """Numbers of a form that say how far training is, in order."""
    numbers = form.lines[0][2]
    places: dict[str, int] = {}
    for i, number in enumerate(numbers):
        if number.meaning is not None and number.meaning.field is not None:
            places.setdefault(number.meaning.field, i)
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
    """Whether a number never falls from one line to the next."""
    values = form.column(index)
    return all(a <= b for a, b in itertools.pairwise(values))


def repeats(form: Form, index: int) -> bool:
    """Whether a step stays the same, as where each epoch's last batch is printed."""
    values = form.column(index)
    return len(values) > 1 and len(set(values)) == 1
