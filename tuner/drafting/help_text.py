"""Reads the options of a script from the output of its `--help`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from tuner.drafting.parameters import Parameter

_NAME = r"-{1,2}(?:\[no-?\])?[A-Za-z][\w.\-]*"
_ONE_NAME = re.compile(rf"(?<![\w\-.]){_NAME}")
_STARTS_OPTION = re.compile(rf"\s*{_NAME}")
#: Matches the frames around the options in help texts that Typer prints.
_FRAME = re.compile(r"[│|╭╮╰╯─*]+(?=\s|$)|^[│|]")
_DEFAULTS = (
    re.compile(r"\(type: .*, default: (?P<value>[^()]*)\)$", re.I),
    re.compile(r"\[default: (?P<value>[^\]]*)\]", re.I),
    re.compile(r"\(default(?: value)?[:=]? ?(?P<value>[^()]*)\)", re.I),
    re.compile(r"default(?:s to| is|:|=)\s*(?P<value>'[^']*'|\"[^\"]*\"|[^\s,;)\]]+)", re.I),
)
_HYDRA = re.compile(r"powered by hydra|override anything in the config", re.I)
_PLACE = "--help"


def is_help(text: str) -> bool:
    """Whether a text is the help of a program, not the output of a training run."""
    return bool(
        re.search(r"\busage\b|^\s*-h, --help|^options:|^FLAGS$|^NAME$|^Options:", text, re.I | re.M)
    ) or (_HYDRA.search(text) is not None or len(list(_blocks(text))) > 2)


def options_of_help(text: str) -> list[Parameter]:
    """Returns the options in a help text, in the order of the text.

    Supports the help of argparse, optparse, click, Typer, absl, Fire, jsonargparse (LightningCLI), tyro and
    docopt, and the configuration that Hydra prints.

    Args:
        text: The output of `--help`.
    """
    if _HYDRA.search(text):
        found = hydra_overrides(text)
        if found:
            return found
    merged: dict[str, Parameter] = {}
    for head, words in _blocks(text):
        option = _option(head, words)
        if option is not None:
            merged.setdefault(option.name, option)
    return list(merged.values())


def hydra_overrides(text: str) -> list[Parameter]:
    """Returns the keys of the configuration in the help text of Hydra, as parameters set by `key=value`.

    Args:
        text: The output of `--help`.
    """
    import yaml

    lines = text.splitlines()
    heads = [
        i
        for i, line in enumerate(lines)
        if re.match(r"=* ?Config ?=*$|.*\bConfig ={2,}$", line.strip())
        or "override anything in the config" in line.lower()
    ]
    body = lines[max(heads) + 1 :] if heads else lines
    body = [line for line in body if not line.startswith(("Powered by", "Use --hydra-help", "=="))]
    try:
        found = yaml.safe_load("\n".join(body))
    except yaml.YAMLError:
        return []
    if not isinstance(found, dict):
        return []
    overrides = [
        Parameter(
            name=name, way="override", default=str(value) if value not in (None, "") else None, place=_PLACE
        )
        for name, value in flat(found)
    ]
    words = "folder that Hydra writes to"
    return [*overrides, Parameter(name="hydra.run.dir", way="override", words=words, place="Hydra")]


def flat(values: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the values in nested dictionaries with dotted names such as `optimizer.lr`; skips lists.

    Args:
        values: The dictionaries.
        prefix: Text to put before each name.
    """
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from flat(value, f"{name}.")
        elif not isinstance(value, list):
            yield name, value


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """Yields two texts for each option in a help text: its first line, and the text below that line.

    Usage lines are skipped.
    """
    blocks: list[tuple[str, list[str]]] = []
    in_usage = is_open = False
    for raw in text.splitlines():
        line = _FRAME.sub(" ", raw).rstrip()
        if re.match(r"\s*usage:?\b", line, re.I):
            in_usage = True
        elif not line.startswith(" "):
            in_usage = False
        if in_usage:
            continue
        if _STARTS_OPTION.match(line):
            blocks.append((line.strip(), []))
            is_open = True
        elif line.strip():
            is_open = is_open and line.startswith(" ")
            if is_open:
                blocks[-1][1].append(line.strip())
    yield from ((head, " ".join(words)) for head, words in blocks)


def _option(head: str, below: str) -> Parameter | None:
    """Parses an option from its first line and the text below that line; returns None for `--help`."""
    # Two spaces separate the names and value placeholders from the help text; in Typer, also from each other.
    parts = re.split(r"\s{2,}|\t", head)
    front = [parts.pop(0)]
    while parts and re.fullmatch(rf"{_NAME}|<?[A-Z][A-Z_|]*>?|\[[a-z|]+\]", parts[0]):
        front.append(parts.pop(0))
    text, words = " ".join(front), " ".join([*parts, below]).strip()
    if re.match(rf"{_NAME}: ", text) or re.fullmatch(rf"{_NAME}:", text):
        # absl prints `--name: words`, and for a switch `--[no]name: words`.
        name, _, said = text.partition(":")
        words = f"{said.strip()} {words}".strip()
        text = name if "[no" in name else f"{name} VALUE"
    names = [name.replace("[no-]", "").replace("[no]", "") for name in _ONE_NAME.findall(text)]
    names = [name.rstrip(".") for name in names if name not in ("-h", "--help")]
    names = [name for name in names if f"--{name.removeprefix('--no-')}" not in {*names} - {name}]
    if not names:
        return None
    left = re.sub(r"\(.*?\)|[,/|]", " ", _ONE_NAME.sub(" ", text)).strip()
    long = [name for name in names if name.startswith("--")] or names
    main = max(long, key=lambda name: ("_" in name or "-" in name.lstrip("-"), name == long[0]))
    is_negation = main.startswith("--no-") and len(names) == 1
    return Parameter(
        name=main,
        aliases=tuple(name for name in names if name != main),
        way="option",
        default=default_in(words),
        takes_value=bool(left) and not is_negation,
        words=words,
        place=_PLACE,
        joined=bool(re.search(rf"{re.escape(main)}=", text)),
    )


def default_in(words: str) -> str | None:
    """Returns the default value that the help text of an option mentions; None if it mentions none."""
    for pattern in _DEFAULTS:
        found = pattern.search(words)
        if found is not None:
            value = re.split(r"[;,] ", found["value"].strip())[0].strip("'\"").rstrip(".")
            return None if value in ("", "None", "none", "null", "==SUPPRESS==", "%(default)s") else value
    return None
