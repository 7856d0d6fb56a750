"""Compares the commands of submitted jobs with the patterns of the allow list, word by word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

#: A word of a shell line as it is written, with its quotes.
_WORD = re.compile(r"""(?:[^ \t'"]|'[^']*'|"[^"]*")+""")
#: Characters that have no meaning for a shell. Template variables such as {seed} are removed before.
_PLAIN = re.compile(r"[\w./:=,@%+-]*")
_VARIABLE = re.compile(r"(?<!\{)\{[a-z_]+\}(?!\})")
#: The last word of a pattern that allows any further words.
_ANY_WORDS = "..."


@dataclass(frozen=True, kw_only=True)
class CommandVerdict:
    """Whether a command is on the allow list.

    Args:
        refusal: Why the command is refused; empty if it is allowed.
        fixed_words: Words that a pattern names, such as the program and its script.
        free_words: Words that the pattern leaves open.
    """

    refusal: str = ""
    fixed_words: tuple[str, ...] = ()
    free_words: tuple[str, ...] = ()


def judge_command(command: str, patterns: Sequence[str]) -> CommandVerdict:
    """Compares a command with the patterns of the allow list.

    - A word of the command must be equal to the word of the pattern, or match its `*` and `?`. A last word
      `...` of a pattern allows any further words.
    - Characters with a meaning for the shell, such as `;` and `$`, are allowed only in words that have
      exactly the text of the pattern, with the same quotes.

    Args:
        command: Command line, a template with variables such as `{seed}`.
        patterns: The patterns, which are command lines too.
    """
    words = _words(command)
    if words is None:
        return CommandVerdict(refusal="has a quotation mark without its partner")
    for pattern in patterns:
        if command == pattern and not pattern.endswith(_ANY_WORDS):
            return CommandVerdict(fixed_words=tuple(map(_unquoted, words)))
        found = _compared(words, _words(pattern) or [])
        if found is not None:
            return found
    # Say which characters would be refused under any pattern, since this is the most frequent reason.
    verbatim = {word for pattern in patterns for word in _words(pattern) or []}
    special = "".join(dict.fromkeys(c for word in words if word not in verbatim for c in _special(word)))
    if special:
        return CommandVerdict(
            refusal=f"has {special!r}, which a shell interprets. Such characters are allowed only in words "
            f"that the allow list has literally; it has {_listed(patterns)}"
        )
    return CommandVerdict(refusal=f"is not on the server's allow list, which has {_listed(patterns)}")


def _compared(words: Sequence[str], pattern: Sequence[str]) -> CommandVerdict | None:
    """Returns the verdict if the words match a pattern, else None."""
    takes_more = bool(pattern) and pattern[-1] == _ANY_WORDS
    named = pattern[:-1] if takes_more else pattern
    if len(words) < len(named) or (len(words) > len(named) and not takes_more) or not words:
        return None
    free = [_unquoted(word) for word in words[len(named) :]]
    for place, (word, wanted) in enumerate(zip(words, named, strict=False)):
        if word == wanted:
            continue
        plain = _unquoted(word)
        # NAME=value before the program would set an environment variable.
        sets_variable = place == 0 and "=" in plain
        if _special(word) or sets_variable or not fnmatchcase(plain, _unquoted(wanted)):
            return None
        if plain != _unquoted(wanted):
            free.append(plain)
    if any(_special(word) for word in words[len(named) :]) or (not named and "=" in words[0]):
        return None
    return CommandVerdict(
        fixed_words=tuple(_unquoted(word) for word in words[: len(named)]), free_words=tuple(free)
    )


def _words(line: str) -> list[str] | None:
    """Splits a shell line into words, with their quotes; None if a quotation mark has no partner."""
    return None if _WORD.sub("", line).strip(" \t") else _WORD.findall(line)


def _unquoted(word: str) -> str:
    return re.sub(r"""'([^']*)'|"([^"]*)\"""", lambda found: found[1] or found[2] or "", word)


def _special(word: str) -> str:
    """Returns the characters of a word that have a meaning for a shell. Blanks inside quotes have none."""
    text = _VARIABLE.sub("", _unquoted(word)).replace(" ", "")
    return _PLAIN.sub("", text) if not _PLAIN.fullmatch(text) else ""


def _listed(patterns: Sequence[str]) -> str:
    return ", ".join(repr(pattern) for pattern in patterns) or "no entry"
