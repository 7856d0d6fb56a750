"""Finds the lines of a script's output that hold scores and positions, and writes patterns for them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tuner.drafting.metric_names import Meaning, Split, meaning_of, split_of, words_of
from tuner.drafting.readings import EpochSize, Reading

#: Colors and other commands to a terminal.
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
#: Dates, times of day and durations: none of their numbers is a position or a score.
_TIMES = re.compile(
    r"\d{4}[-/]\d{2}[-/]\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2})?(?:[.,]\d+)?)?|\d{1,2}:\d{2}(?::\d{2})?(?:[.,]\d+)?"
)
_NUMBER = re.compile(
    r"(?<![\w.@])[-+]?(?:\d+(?:,\d{3})+|\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?P<unit>%|[a-zµ]{1,7}(?:/\w+)?\b|(?![\w]))"
    r"|(?<![\w.])(?:nan|inf)\b",
    re.IGNORECASE,
)
_LABEL = re.compile(r"(?:[A-Za-z_][\w@./\-]*['\"]?[ _#]*){1,4}$")
_BAR = re.compile(r"\d+%\||[█▏▎▍▌▋▊▉#━=>]{3,}|\|\s*\d+/\d+\s*\[|\bit/s|s/it|/step\b")
#: Forms of lines that are told apart; a script that prints more forms than this is not understood further.
_MOST_FORMS = 2_000
_MOST_LENGTH = 2_000
#: Steps between two lines of progress, as scripts have them by default.
_USUAL_INTERVALS = {1, 2, 5, 10, 20, 25, 30, 50, 100, 200, 250, 500, 1000}
_VALUE = r"[-+.\w]*\w%?"


@dataclass(frozen=True, kw_only=True)
class _Number:
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
class _Form:
    """Lines that differ in their numbers only."""

    lines: list[tuple[int, str, list[_Number]]] = field(default_factory=list)

    def column(self, index: int) -> list[float]:
        return [numbers[index].value for _, _, numbers in self.lines]

    def name_samples(self, batch_size: int | None) -> None:
        """Tells counters of samples from counters of batches."""
        for index, number in enumerate(self.lines[0][2]):
            if number.is_counter and number.meaning and _counts_samples(self.column(index), batch_size):
                for _, _, numbers in self.lines:
                    numbers[index] = _with(numbers[index], meaning=Meaning(field="samples"))


@dataclass(frozen=True, kw_only=True)
class _Candidate:
    """A number of a form that may be the metric."""

    form: _Form
    index: int
    meaning: Meaning
    rank: int


def read_output(lines: Sequence[str], batch_size: int | None) -> list[Reading]:
    """Every way to read scores from what a script prints, the most telling score first.

    Args:
        lines: What it printed, without line ends.
        batch_size: Global batch size of the run; None if unknown.
    """
    forms = _forms(lines)
    for form in forms:
        form.name_samples(batch_size)
    found = []
    for candidate in sorted(_candidates(forms), key=lambda one: one.rank):
        reading = _reading(candidate, forms, lines, batch_size)
        if reading is not None:
            found.append(reading)
    return found


def epoch_samples_in(lines: Sequence[str]) -> EpochSize | None:
    """The size of the training set as a script prints it; None if it does not.

    Args:
        lines: What it printed.
    """
    ranked: list[tuple[int, int, str]] = []
    for text in lines:
        for pattern in _SIZES:
            found = pattern.search(text)
            if found is None or re.search(
                r"\b(val|valid|validation|test|eval|dev)\b", text[: found.end()], re.I
            ):
                continue
            size = int(found["size"].replace(",", "").replace("_", ""))
            if size >= 10:
                is_training = bool(re.search("train", found[0], re.I))
                ranked.append((0 if is_training else 1, -size, text.strip()))
    if not ranked:
        return None
    _, size, text = min(ranked)
    return EpochSize(samples=-size, line=text, is_exact=True)


_SIZE = r"(?P<size>\d[\d,_]*)"
_THINGS = r"(?:samples|examples|images|instances|sequences|rows|points|records)"
_SIZES = (
    re.compile(rf"\btrain\w*[^\d\n]{{0,30}}{_THINGS}\b[^\d\n]{{0,5}}[:=]\s*{_SIZE}\b", re.I),
    re.compile(rf"\b(?:num(?:ber of)?|#) *(?:train\w*)? *{_THINGS}\b\s*[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} (?:train\w* ){_THINGS}", re.I),
    re.compile(rf"\btrain\w* (?:set|data|dataset|size|split)\b[^\d\n]{{0,20}}[:=]?\s*{_SIZE}\b", re.I),
    re.compile(rf"\b{_SIZE} {_THINGS}\b(?!/|\s*per)", re.I),
)


def _forms(lines: Sequence[str]) -> list[_Form]:
    forms: dict[str, _Form] = {}
    for i, raw in enumerate(lines):
        text = _ANSI.sub("", raw)[:_MOST_LENGTH]
        numbers = _numbers(text)
        if not numbers:
            continue
        form = re.sub(r"\s+", " ", _NUMBER.sub("#", _hide_times(text))).strip()
        form = re.sub(r"[█▏▎▍▌▋▊▉━=>.]{3,}", "", form) if _BAR.search(text) else form
        key = f"{form} {len(numbers)}"
        if key in forms or len(forms) < _MOST_FORMS:
            forms.setdefault(key, _Form()).lines.append((i, text, numbers))
    return list(forms.values())


def _hide_times(text: str) -> str:
    return _TIMES.sub(lambda found: "T" * len(found[0]), text)


def _numbers(text: str) -> list[_Number]:
    """The numbers of a line with their meanings."""
    hidden = _hide_times(text)
    found: list[_Number] = []
    context: Split | None = None
    end = 0
    for match in _NUMBER.finditer(hidden):
        gap = text[end : match.start()]
        front = gap.rstrip(" \t:=[(<\"'|,;")
        label = _LABEL.search(front)
        words = label[0].strip() if label is not None else ""
        context = split_of(gap) or context
        number = _Number(
            start=match.start(),
            end=match.end(),
            value=_value(match[0]),
            label_start=end + label.start() if label is not None else match.start(),
            label=words,
            meaning=None if (match["unit"] or "%") != "%" else meaning_of(words, context),
        )
        found.append(_in_line(number, gap, found, text))
        end = match.end()
    return _with_totals(found, text)


def _in_line(number: _Number, gap: str, before: Sequence[_Number], text: str) -> _Number:
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


def _with_totals(numbers: list[_Number], text: str) -> list[_Number]:
    """Numbers `a/b`: the second is the first one's total."""
    found: list[_Number] = []
    i = 0
    while i < len(numbers):
        number = numbers[i]
        if i + 1 < len(numbers):
            gap = text[number.end : numbers[i + 1].start].strip()
            if gap in ("/", "of") and numbers[i + 1].value >= number.value:
                number = _with(number, total=numbers[i + 1].value)
                if number.meaning is not None and number.meaning.metric:
                    number, numbers[i + 1 :] = _of_total(number, numbers[i + 1 :], text)
                if (number.meaning is None and not words_of(number.label)) or (
                    number.meaning is None and split_of(number.label) in ("validation", "test")
                ):
                    number = _with(number, is_counter=True)
        found.append(number)
        i += 1
    # timm: `Train: 3 [ 100/1251 ( 8%)]`.
    for i, number in enumerate(found[:-1]):
        opens = text[number.end : found[i + 1].start].strip() == "["
        if opens and number.meaning is None and split_of(number.label) == "training":
            found[i] = _with(number, meaning=Meaning(field="epoch"))
            found[i + 1] = _with(found[i + 1], meaning=Meaning(field="step"), is_counter=True)
    return found


def _of_total(number: _Number, others: list[_Number], text: str) -> tuple[_Number, list[_Number]]:
    """`Accuracy: 9003/10000 (90%)` is the percentage; without one it is a count of right answers."""
    meaning = number.meaning
    assert meaning is not None
    if (
        len(others) > 1
        and text[others[0].end : others[1].start].strip() == "("
        and text[others[1].end - 1] == "%"
    ):
        percent = _with(others[1], meaning=meaning, label=number.label)
        return _with(number, meaning=None), [others[0], percent, *others[2:]]
    return _with(number, meaning=replace(meaning, metric="correct")), others


def _with(number: _Number, **changes: object) -> _Number:
    return replace(number, **changes)  # type: ignore[arg-type]


def _value(text: str) -> float:
    try:
        return float(re.sub(r"[%a-zµ/]+$", "", text.replace(",", ""), flags=re.I) or text)
    except ValueError:
        return math.nan


def _candidates(forms: Sequence[_Form]) -> list[_Candidate]:
    """Numbers that may be the metric, with how likely each is: a smaller rank is likelier."""
    evaluating = {i for form in forms if _is_evaluation_progress(form) for i, _, _ in form.lines}
    found = []
    for form in forms:
        for index, number in enumerate(form.lines[0][2]):
            meaning = number.meaning
            if meaning is None or meaning.field is not None:
                continue
            rank = meaning.rank
            first = form.lines[0][0]
            if (
                meaning.split == "unknown"
                and evaluating
                and any(i - 1 in evaluating for i, _, _ in form.lines)
            ):
                # The summary behind the lines of an evaluation.
                rank -= 20
                meaning = Meaning(
                    metric=meaning.metric, direction=meaning.direction, split="validation", rank=rank
                )
            if first in evaluating:
                rank += 50
            values = [value for value in form.column(index) if math.isfinite(value)]
            if len(set(values)) < 2 <= len(values) or (len(form.lines) == 1 and _has_better(form, forms)):
                rank += 5
            if not values:
                rank += 30
            position = any(one.meaning is not None and one.meaning.field for one in form.lines[0][2])
            rank += 0 if position else 1
            found.append(_Candidate(form=form, index=index, meaning=meaning, rank=10 * rank + index))
    return found


def _has_better(form: _Form, forms: Sequence[_Form]) -> bool:
    """Whether some other form with a score was printed more often."""
    return any(
        len(other.lines) > 1
        for other in forms
        if other is not form and any(n.meaning is not None and not n.meaning.field for n in other.lines[0][2])
    )


def _is_evaluation_progress(form: _Form) -> bool:
    """Whether lines count the batches of an evaluation: they show averages so far, not results."""
    numbers = form.lines[0][2]
    text = form.lines[0][1]
    counters = [one.start for one in numbers if one.is_counter and one.total]
    is_evaluation = bool(counters) and split_of(text[: counters[0]]) in ("validation", "test")
    return is_evaluation and not any(
        one.meaning is not None and one.meaning.field == "epoch" and one.label for one in numbers
    )


def _reading(
    candidate: _Candidate, forms: Sequence[_Form], lines: Sequence[str], batch_size: int | None
) -> Reading | None:
    """How to read a candidate; None if nothing says where in the training its values belong."""
    form = candidate.form
    own = _position(form)
    patterns: list[str] = []
    size: EpochSize | None = None
    if own:
        patterns = [_pattern(form, [*own, candidate.index], own, candidate.index, lines)]
        fields = {_field(form, i) for i in own}
        progress = _progress_form(form, own, forms)
        if progress is not None and "epoch" in fields:
            steps = _position(progress, wants_steps=True)
            patterns.insert(0, _pattern(progress, steps, steps, None, lines))
            fields |= {_field(progress, i) for i in steps}
            if len(steps) > 1:
                size = size or _epoch_size(progress, steps, batch_size)
        size = size or _epoch_size(form, own, batch_size)
    else:
        other = _position_form(form, forms)
        if other is None:
            return None
        place = _position(other, wants_steps=True)
        if not place:
            return None
        patterns = [
            _pattern(other, place, place, None, lines),
            _pattern(form, [candidate.index], [], candidate.index, lines),
        ]
        fields = {_field(other, i) for i in place}
        size = _epoch_size(other, place, batch_size)
    if size is None and "epoch" in fields and batch_size is not None:
        size = _counted_epoch(forms, batch_size)
    texts = [text for _, text, _ in form.lines]
    percent = any(
        text[n[candidate.index].start : n[candidate.index].end].endswith("%") for _, text, n in form.lines
    )
    return Reading(
        source="output",
        meaning=candidate.meaning,
        label=form.lines[0][2][candidate.index].label,
        values=tuple(value for value in form.column(candidate.index) if math.isfinite(value)),
        patterns=tuple(patterns),
        fields=frozenset(fields),
        has_percent_sign=percent,
        examples=(texts[0].strip(), *((texts[-1].strip(),) if len(texts) > 1 else ())),
        epoch_samples=size,
        rank=candidate.rank,
    )


def _field(form: _Form, index: int) -> str:
    meaning = form.lines[0][2][index].meaning
    assert meaning is not None
    assert meaning.field is not None
    return meaning.field


def _position(form: _Form, *, wants_steps: bool = False) -> list[int]:
    """Numbers of a form that say how far training is, in order."""
    numbers = form.lines[0][2]
    places: dict[str, int] = {}
    for i, number in enumerate(numbers):
        if number.meaning is not None and number.meaning.field is not None:
            places.setdefault(number.meaning.field, i)
    if "samples" in places:
        is_whole = not numbers[places["samples"]].is_counter and _rises(form, places["samples"])
        if is_whole and len(set(form.column(places["samples"]))) > 1:
            return [places["samples"]]
        if numbers[places["samples"]].is_counter and "epoch" in places:
            return sorted((places["epoch"], places["samples"]))
    if "step" in places:
        restarts = numbers[places["step"]].is_counter or not _rises(form, places["step"])
        if not restarts and not _repeats(form, places["step"]):
            return [places["step"]]
        if "epoch" in places and (wants_steps or len(form.lines) > 1):
            return sorted((places["epoch"], places["step"]))
        if "epoch" not in places:
            return []
    return [places["epoch"]] if "epoch" in places else []


def _rises(form: _Form, index: int) -> bool:
    values = form.column(index)
    return all(a <= b for a, b in itertools.pairwise(values))


def _repeats(form: _Form, index: int) -> bool:
    """Whether a step stays the same, as where each epoch's last batch is printed."""
    values = form.column(index)
    return len(values) > 1 and len(set(values)) == 1


def _position_form(form: _Form, forms: Sequence[_Form]) -> _Form | None:
    """The form whose lines say where the scores of another form belong."""
    ranked = []
    for i, other in enumerate(forms):
        if other is form or _is_evaluation_progress(other):
            continue
        place = _position(other, wants_steps=True)
        if not place or len(other.lines) < min(2, len(form.lines)):
            continue
        names = {_field(other, index) for index in place}
        varies = any(len(set(other.column(index))) > 1 for index in place)
        ranked.append((not varies, "epoch" not in names, len(place) == 1 and len(other.lines) < 2, i))
    return forms[min(ranked)[-1]] if ranked else None


def _progress_form(form: _Form, own: Sequence[int], forms: Sequence[_Form]) -> _Form | None:
    """Lines of training within an epoch, whose epoch is numbered as in `form`."""
    epochs = [i for i in own if _field(form, i) == "epoch"]
    if not epochs or len(own) > 1:
        return None
    for other in forms:
        if other is form or len(other.lines) < 2 * len(form.lines) or _is_evaluation_progress(other):
            continue
        place = _position(other, wants_steps=True)
        if len(place) != 2:
            continue
        epoch = next(i for i in place if _field(other, i) == "epoch")
        agree = 0
        for line, _, numbers in form.lines:
            before = [n[epoch].value for i, _, n in other.lines if i < line]
            agree += bool(before) and before[-1] == numbers[epochs[0]].value
        if agree == len(form.lines):
            return other
    return None


def _epoch_size(form: _Form, place: Sequence[int], batch_size: int | None) -> EpochSize | None:
    """Samples of an epoch from a counter `a/b` within it, with the line it follows from."""
    _, text, numbers = form.lines[0]
    for i in place:
        total = numbers[i].total
        if total is not None and numbers[i].is_counter:
            if _field(form, i) == "samples":
                return EpochSize(samples=int(total), line=text.strip(), is_exact=True)
            if _field(form, i) == "step" and batch_size:
                return EpochSize(samples=int(total) * batch_size, line=text.strip(), is_exact=False)
    return None


def _counted_epoch(forms: Sequence[_Form], batch_size: int) -> EpochSize | None:
    """Samples of an epoch from a progress bar that counts its batches."""
    for form in forms:
        _, text, numbers = form.lines[0]
        if _is_evaluation_progress(form) or split_of(text) in ("validation", "test"):
            continue
        for number in numbers:
            is_batches = number.is_counter and _BAR.search(text) and (number.total or 0) > 1
            if is_batches and not (number.meaning and number.meaning.field == "epoch"):
                size = int(number.total or 0) * batch_size
                return EpochSize(samples=size, line=text.strip(), is_exact=False)
    return None


def _counts_samples(values: Sequence[float], batch_size: int | None) -> bool:
    """Whether a counter counts samples: it rises by multiples of the batch size, in no usual interval."""
    jumps = {b - a for a, b in itertools.pairwise(values) if b > a}
    # The last batch of an epoch is smaller than the others.
    common = [jump for jump in jumps if jump % (batch_size or 1) == 0]
    return bool(batch_size and batch_size > 1 and common and min(jumps) not in _USUAL_INTERVALS) and 2 * len(
        common
    ) >= len(jumps)


def _pattern(
    form: _Form, wanted: Sequence[int], place: Sequence[int], value: int | None, lines: Sequence[str]
) -> str:
    """A regular expression for a form: the shortest that matches its lines and no other."""
    meant = {i for i, _, _ in form.lines}
    names = {index: _field(form, index) for index in place}
    if value is not None:
        names[value] = "value"
    plain = [_ANSI.sub("", line)[:_MOST_LENGTH] for line in lines]
    text = ""
    for context in (0, 1, 2):
        text = _expression(form, sorted(set(wanted)), names, context)
        try:
            found = re.compile(text)
        except re.error:
            continue
        matched = {i for i, line in enumerate(plain) if found.search(line)}
        if meant <= matched and not _wrong(found, form, names):
            if matched == meant or context == 2:
                return text
            # Lines with other words around the same labels are meant as well, if they give numbers.
            others = [found.search(plain[i]) for i in matched - meant]
            if value is None and all(one is not None for one in others):
                return text
    return text


def _wrong(found: re.Pattern[str], form: _Form, names: dict[int, str]) -> bool:
    """Whether an expression takes another number of a line than the one that is meant."""
    for _, text, numbers in form.lines:
        matches = list(found.finditer(text))
        if len(matches) != 1:
            return True
        for index, name in names.items():
            if matches[0].start(name) != numbers[index].start:
                return True
    return False


def _expression(form: _Form, wanted: Sequence[int], names: dict[int, str], context: int) -> str:
    """A regular expression for some numbers of a form.

    Args:
        form: The lines.
        wanted: Numbers in order.
        names: Number to name of its group.
        context: 0 takes the label of each number, 1 all words since the number before, 2 the whole line.
    """
    _, text, numbers = form.lines[0]
    parts = []
    done = -1
    for index in wanted:
        number = numbers[index]
        start = numbers[index - 1].end if index else 0
        if context == 2:
            between = [
                _literal(text[(numbers[j - 1].end if j else 0) : numbers[j].start]) + r"\S+?"
                for j in range(done + 1, index)
            ]
            parts.append("".join(between) + _literal(text[start : number.start]))
        elif context == 1 or done == index - 1 >= 0:
            parts.append(
                (".*?" if done not in (-1, index - 1) else "") + _literal(text[start : number.start])
            )
        else:
            label = text[min(number.label_start, number.start) : number.start]
            if not label.strip():
                label = text[start : number.start]
            bounded = (r"\b" if label[:1].isalnum() or label[:1] == "_" else "") + _literal(label.lstrip())
            parts.append((".*?" if done >= 0 else "") + bounded)
        digits = _VALUE if names[index] == "value" else _digits(form, index)
        parts.append(f"(?P<{names[index]}>{digits})")
        done = index
    front = "^" if context == 2 or (context == 1 and wanted[0] == 0) else ""
    expression = front + "".join(parts)
    # A position that stands before its total, `3/10`, must not be read from the total.
    last = numbers[wanted[-1]]
    if names[wanted[-1]] != "value" and last.total is not None:
        expression += "/" if text[last.end :].lstrip().startswith("/") else ""
        expression = (
            expression.replace(")/", r")\s*/") if text[last.end : last.end + 1] == " " else expression
        )
    return expression


def _digits(form: _Form, index: int) -> str:
    """An expression for the numbers of a position as they are written: with commas, with parts, or plain."""
    texts = [text[numbers[index].start : numbers[index].end] for _, text, numbers in form.lines]
    # An epoch that is whole so far may have a part later.
    others = "." if _field(form, index) == "epoch" else ""
    others += "," if any("," in text for text in texts) else ""
    return rf"[\d{others}]+" if others else r"\d+"


def _literal(text: str) -> str:
    """Text as an expression: any amount of space at its ends, and where more than one space stands."""
    words = re.split(r"(\s+)", text)
    parts = []
    for i, word in enumerate(words):
        if word.isspace():
            is_plain = word == " " and 1 < i < len(words) - 2
            parts.append(" " if is_plain else r"\s*")
        elif word:
            parts.append(re.escape(word).replace(r"\-", "-").replace(r"\#", "#").replace(r"\&", "&"))
    return "".join(parts)
