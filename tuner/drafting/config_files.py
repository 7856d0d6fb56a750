"""Parameters in the configuration files that a command names, and how a command line changes them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

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
    """A configuration file that the command line names.

    Args:
        word: The word that names it in the command line.
        path: The file.
        keys: Dotted names of its keys, to the number of the line and the value.
    """

    word: str
    path: Path
    keys: Mapping[str, tuple[int, str]]

    def parameters(self) -> list[Parameter]:
        """Its keys as parameters; those of gin are bindings."""
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
        """A shell command that writes the file with other values to stdout; None if there are no changes.

        Args:
            changes: Dotted name of a key to its new value: text of a template.
        """
        lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        edits = []
        for name, value in changes.items():
            number, _ = self.keys[name]
            found = _LINE.match(lines[number - 1])
            assert found is not None
            before = lines[number - 1][: found.start("value")]
            pattern = re.sub(r"([.*\[\]\\#^$])", r"\\\1", before)
            alike = [line for line in lines if line.startswith(before)]
            # Where a key stands twice, the number of its line tells which is meant.
            place = str(number) if len(alike) > 1 else ""
            tail = "," if re.match(r".*,\s*$", lines[number - 1]) else ""
            edits.append(f"-e {_quoted(place, pattern, value, tail)}")
        return f"sed {' '.join(edits)} {shlex.quote(self.word)}" if edits else None


def _quoted(place: str, pattern: str, value: str, tail: str) -> str:
    """An edit of sed for a template: literal braces doubled, and the value outside of the quotes."""
    pattern = pattern.replace("{", "{{").replace("}", "}}").replace("'", "'\\''")
    return f"'{place}s#^\\({pattern}\\).*#\\1'{value}'{tail}#'"


def config_files(arguments: Sequence[str], folder: Path) -> list[ConfigFile]:
    """The configuration files among the words of a command line.

    Args:
        arguments: Words behind the script.
        folder: Where the command runs.
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
    """Keys with a value on their own line, by dotted name, with line number and value.

    It follows indentation (YAML, JSON) and sections (TOML, INI).
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
