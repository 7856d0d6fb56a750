"""Writes regular expressions that read numbers from similar output lines.

Lines have the same form if they differ only in their numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tuner.drafting.line_forms import Form, Number, plain_line
from tuner.drafting.metric_names import split_of

_VALUE = r"[-+.\w]*\w%?"
#: Largest value of the argument `context` of `_expression`: then it matches nearly the whole line.
_LONGEST_CONTEXT = 3


def pattern_of(
    form: Form, wanted: Sequence[int], place: Sequence[int], value: int | None, lines: Sequence[str]
) -> str:
    """Returns a short regular expression that matches all lines of a group and, if possible, no other lines.

    Args:
        form: A group of lines that differ only in their numbers.
        wanted: Indices (from 0, in the line) of the numbers that the expression reads.
        place: Indices of the numbers that measure training progress: epoch, step or samples.
        value: Index of the score; None if the expression reads no score.
        lines: All lines of the output, to test that the expression matches no other lines.
    """
    meant = {i for i, _, _ in form.lines}
    names = {index: str(form.numbers[index].field) for index in place}
    if value is not None:
        names[value] = "value"
    plain = [plain_line(line) for line in lines]
    text = ""
    for context in range(_LONGEST_CONTEXT + 1):
        text = _expression(form, sorted(set(wanted)), names, context)
        try:
            found = re.compile(text)
        except re.error:
            continue
        matched = {i for i, line in enumerate(plain) if found.search(line)}
        if meant <= matched and not _wrong(found, form, names):
            if matched == meant:
                return text
            # An expression that reads only training progress may also match other lines, but not lines of an
            # evaluation.
            others = [split_of(plain[i]) for i in matched - meant]
            if value is None and not {"validation", "test"} & set(others):
                return text
    return text


def _wrong(found: re.Pattern[str], form: Form, names: dict[int, str]) -> bool:
    """Whether an expression fails on a line: it does not match exactly once, or reads other numbers.

    Args:
        found: The regular expression.
        form: The group of lines on which the expression is tested.
        names: Maps the index of each number that the expression has to read to the name of its group.
    """
    for _, text, numbers in form.lines:
        matches = list(found.finditer(text))
        if len(matches) != 1:
            return True
        for index, name in names.items():
            if matches[0].start(name) != numbers[index].start:
                return True
    return False


def _expression(form: Form, wanted: Sequence[int], names: dict[int, str], context: int) -> str:
    """Returns a regular expression that reads some of the numbers in similar lines.

    Args:
        form: A group of lines that differ only in their numbers.
        wanted: Indices of the numbers to read, in the order of the line.
        names: Maps the index of each number to the name of its group in the expression.
        context: How much text besides the numbers the expression matches. 0: the words directly before each
            number; 1: all text between each number and the number before it; 2: the whole line up to the last
            number; 3: the whole line up to the last number and the text after it.
    """
    text, numbers = form.text, form.numbers
    parts = []
    done = -1
    for index in wanted:
        number = numbers[index]
        start = numbers[index - 1].end if index else 0
        if context >= 2:
            skipped = [_gap(text, numbers, j) + r"\S+?" for j in range(done + 1, index)]
            parts.append("".join(skipped) + _gap(text, numbers, index))
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
    front = "^" if context >= 2 or (context == 1 and wanted[0] == 0) else ""
    expression = front + "".join(parts)
    last = numbers[wanted[-1]]
    if context == _LONGEST_CONTEXT:
        following = numbers[wanted[-1] + 1].start if wanted[-1] + 1 < len(numbers) else len(text)
        return expression + _literal(text[last.end : following])
    # In `3/10`, the expression must read the 3, not the total.
    if names[wanted[-1]] != "value" and last.total is not None:
        expression += "/" if text[last.end :].lstrip().startswith("/") else ""
        expression = (
            expression.replace(")/", r")\s*/") if text[last.end : last.end + 1] == " " else expression
        )
    return expression


def _gap(text: str, numbers: Sequence[Number], index: int) -> str:
    """Returns a regular expression that matches the text between a number and the number before it.

    Args:
        text: The line.
        numbers: The numbers in the line, in order.
        index: Index of the number that follows the text.
    """
    between = text[numbers[index - 1].end if index else 0 : numbers[index].start]
    return r"\s+" if index and between.isspace() else _literal(between)


def _digits(form: Form, index: int) -> str:
    """Returns a regular expression for an epoch, step or number of samples, maybe with commas or a fraction.

    Args:
        form: A group of lines that differ only in their numbers.
        index: Index of the number in these lines.
    """
    texts = [text[numbers[index].start : numbers[index].end] for _, text, numbers in form.lines]
    # Allow a decimal point in epochs, since a later epoch may be a fraction such as 1.5.
    others = "." if form.numbers[index].field == "epoch" else ""
    others += "," if any("," in text for text in texts) else ""
    return rf"[\d{others}]+" if others else r"\d+"


def _literal(text: str) -> str:
    """Returns a regular expression that matches a text with any amount of white space between its words."""
    words = re.split(r"(\s+)", text)
    parts = []
    for i, word in enumerate(words):
        if word.isspace():
            is_plain = word == " " and 1 < i < len(words) - 2
            parts.append(" " if is_plain else r"\s*")
        elif word:
            parts.append(re.escape(word).replace(r"\-", "-").replace(r"\#", "#").replace(r"\&", "&"))
    return "".join(parts)
