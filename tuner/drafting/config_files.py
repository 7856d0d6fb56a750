"""Finds parameters in configuration files, and writes `sed` commands that change their values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.drafting.command_line import braced
from tuner.drafting.parameters import Parameter

_SUFFIXES = {".yaml", ".yml", ".json", ".toml", ".ini", ".cfg", ".conf", ".gin", ".env"}
_MOST_BYTES = 2**20
_LINE = re.compile(
    r"^(?P<indent>\s*)(?P<quote>[\"']?)(?P<key>[A-Za-z_][\w.\-/]*)(?P=quote)(?P<sign>\s*[:=]\s*)"
    r"(?P<value>[^#,;\s][^#,;]*?)?(?P<end>\s*,?\s*([#;].*)?)$"
)
_SECTION = re.compile(r"^\s*\[+(?P<name>[^\]]+)\]+\s*$")


@dataclass(frozen=True, kw_only=True)
class ConfigFile:
    """A configuration file whose path is an argument of the training command.

    Args:
        word: Path of the file as written in the command, to find and replace it there.
        path: Path of the file relative to the present folder, to read it.
        keys: Maps the dotted name of each key (such as `optimizer.lr`) to its line number, from 1, and value.
    """

    word: str
    path: Path
    keys: Mapping[str, tuple[int, str]]

    def parameters(self) -> list[Parameter]:
        """Returns the keys of the file as parameters of the script; keys of gin files become gin bindings."""
        way = "gin" if self.path.suffix == ".gin" else "file"
        return [
            Parameter(
                name=name,
                way=way,  # type: ignore[arg-type]
                default=value,
                place=f"{self.path.name} line {line}",
            )
            for name, (line, value) in self.keys.items()
        ]

    def rewritten(self, changes: Mapping[str, str]) -> str | None:
        """Returns a shell command that writes the file with changed values to stdout.

        Args:
            changes: Maps the dotted name of each key to change to its new value, which may contain template
                variables.

        Returns:
            The command; None if `changes` is empty.
        """
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        edits = []
        for name, value in changes.items():
            number, _ = self.keys[name]
            found = _LINE.match(lines[number - 1])
            assert found is not None
            before = lines[number - 1][: found.start("value")]
            pattern = re.sub(r"([.*\[\]\\#^$])", r"\\\1", before)
            # If several lines start with the same text, select this one by its number.
            place = str(number) if sum(line.startswith(before) for line in lines) > 1 else ""
            tail = "," if lines[number - 1].rstrip().endswith(",") else ""
            quoted = braced(pattern).replace("'", "'\\''")
            # The value is outside the quotes, because the shell must expand it.
            edits.append(f"-e '{place}s#^\\({quoted}\\).*#\\1'{value}'{tail}#'")
        return f"sed {' '.join(edits)} {shlex.quote(self.word)}" if edits else None


def config_files(arguments: Sequence[str], folder: Path) -> list[ConfigFile]:
    """Returns the configuration files among the arguments of a training command.

    Args:
        arguments: Words of the command after the script.
        folder: Working directory of the command, in which relative paths start.
    """
    found = []
    for word in arguments:
        name = word.rpartition("=")[2] if word.startswith("-") else word
        path = folder / name
        try:
            is_file = path.suffix in _SUFFIXES and path.is_file() and path.stat().st_size <= _MOST_BYTES
        except OSError:
            continue
        if is_file:
            found.append(ConfigFile(word=name, path=path, keys=keys_of(path)))
    return found


def keys_of(path: Path) -> dict[str, tuple[int, str]]:
    """Reads those keys of a configuration file that are alone on a line with their value.

    Parent keys (by indentation in YAML and JSON) and sections (in TOML and INI) are put before the name of a
    key, separated by dots, as in `optimizer.lr`.

    Args:
        path: Path of the configuration file.

    Returns:
        Maps the dotted name of each key to its line number, from 1, and value.
    """
    keys: dict[str, tuple[int, str]] = {}
    section = ""
    parents: list[tuple[int, str]] = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        head = _SECTION.match(line)
        if head is not None:
            section, parents = f"{head['name'].strip()}.", []
            continue
        found = _LINE.match(line)
        if found is None:
            continue
        depth = len(found["indent"].expandtabs(4))
        while parents and parents[-1][0] >= depth:
            parents.pop()
        value = (found["value"] or "").strip()
        if not value or value in ("{", "[", "|", ">"):
            parents.append((depth, found["key"]))
            continue
        name = section + ".".join([*(key for _, key in parents), found["key"]])
        keys.setdefault(name, (number, value))
    return keys
