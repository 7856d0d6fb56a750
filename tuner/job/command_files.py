"""Finds the script files of a command, reads their text and computes their digest."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
from pathlib import Path

from tuner.job.command_section import CommandSection
from tuner.job.workload_code import with_imports

#: A file on the command line counts as an output of the command if one of these words precedes its name, or
#: if its name has one of these endings.
_WRITES = {">", ">>", "1>", "2>", "&>", "2>>", "tee"}
_WRITTEN = {".log", ".out", ".err", ".pt", ".pth", ".ckpt", ".safetensors"}

#: Size of the largest script file that is read, in bytes.
_MOST_BYTES = 2**20
#: Of a larger file, the digest depends only on the size and on this number of bytes. Such files are data.
_MOST_HASHED_BYTES = 64 * 2**20


def script_files(section: CommandSection, job_folder: Path) -> list[Path]:
    """Returns the sorted files in the working folder that a command uses.

    These are the files on the command line and the modules that they import. Files that the command writes,
    such as a log, are omitted, because each execution of the command changes them.

    Args:
        section: The section `[workload]` with the command.
        job_folder: Folder of the job file.
    """
    folder = (job_folder / section.folder).resolve()
    found: set[Path] = set()
    words = _words(section.command)
    for before, word in zip(["", *words], words, strict=False):
        for path in _candidates(word, folder):
            is_written = before in _WRITES or path.suffix in _WRITTEN or word.startswith(">")
            if path.is_relative_to(folder) and not is_written and _is_file(path):
                found.update(with_imports(path, package="") if path.suffix == ".py" else [path])
    return sorted(found)


def script_digest(section: CommandSection, job_folder: Path) -> str:
    """Returns a digest of the script files, sixteen hexadecimal digits; empty if there are no such files."""
    files = script_files(section, job_folder)
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as content:
            digest.update(content.read(_MOST_HASHED_BYTES))
            if (size := os.fstat(content.fileno()).st_size) > _MOST_HASHED_BYTES:
                digest.update(str(size).encode())
    return digest.hexdigest()[:16]


def script_text(section: CommandSection, job_folder: Path) -> str:
    """Returns the joined text of the script files, without files above 1 MiB."""
    return "\n".join(
        file.read_text(encoding="utf-8", errors="ignore")
        for file in script_files(section, job_folder)
        if file.stat().st_size <= _MOST_BYTES
    )


def asks_for_values(text: str) -> bool:
    """Whether a command or script reads the JSON file with all values, directly or with `paceline_client`."""
    calls_client = "paceline_client" in text and re.search(r"(paceline_client\.|(?<![.\w]))values\(\)", text)
    return "PACELINE_VALUES" in text or bool(calls_client)


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command, comments=False)
    except ValueError:
        return command.split()


def _candidates(word: str, folder: Path) -> list[Path]:
    """Returns the paths that a word of a command line may contain.

    They are the word itself, the text after `=`, and the file of a module with this name.
    """
    names = {word, word.rpartition("=")[2].strip(";&|()")}
    names = {name for name in names if name and "{" not in name and not name.startswith("-")}
    paths = [folder / name for name in names]
    for name in names:
        if all(part.isidentifier() for part in name.split(".")):
            paths.append(folder.joinpath(*name.split(".")).with_suffix(".py"))
    return [path.resolve() for path in paths]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # the word is longer than any file name
