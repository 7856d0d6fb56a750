"""The script files that a command names: what they contain, and their digest."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

from tuner.job.command_section import CommandSection
from tuner.job.workload_code import with_imports

#: A word after one of these names a file that the command writes, and so does a name with such an ending.
_WRITES = {">", ">>", "1>", "2>", "&>", "2>>", "tee"}
_WRITTEN = {".log", ".out", ".err", ".pt", ".pth", ".ckpt", ".safetensors"}

#: What is read to see how a script takes its values is no longer than this.
_MOST_BYTES = 2**20


def script_files(section: CommandSection, job_folder: Path) -> list[Path]:
    """Files in the working folder that the command line names, and what of them Python imports, sorted.

    Not those that it writes, such as a log: they differ after every run, and would not be the job's identity.

    Args:
        section: The command.
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
    """Digest of the script files: sixteen hexadecimal digits, empty where the command names none."""
    files = script_files(section, job_folder)
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def script_text(section: CommandSection, job_folder: Path) -> str:
    """What the script files say, as far as they are text of a size that people write."""
    files = script_files(section, job_folder)
    return "\n".join(
        file.read_text(encoding="utf-8", errors="ignore")
        for file in files
        if file.stat().st_size <= _MOST_BYTES
    )


def asks_for_values(text: str) -> bool:
    """Whether a command or script reads the file with all values, by itself or by the client."""
    if "PACELINE_VALUES" in text:
        return True
    # Not `values()` as a method of something else.
    return (
        "paceline_client" in text and re.search(r"(paceline_client\.|(?<![.\w]))values\(\)", text) is not None
    )


def _words(command: str) -> list[str]:
    # A template's braces do no harm to the shell's rules of quoting; what a person left open does.
    try:
        return shlex.split(command, comments=False)
    except ValueError:
        return command.split()


def _candidates(word: str, folder: Path) -> list[Path]:
    """The files that a word may name: itself, what follows an equals sign, or a module for `-m`."""
    names = {word, word.rpartition("=")[2].strip(";&|()")}
    names = {name for name in names if name and "{" not in name and not name.startswith("-")}
    paths = [folder / name for name in names]
    paths += [folder.joinpath(*name.split(".")).with_suffix(".py") for name in names if _is_module(name)]
    return [path.resolve() for path in paths]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:
        return False  # a word may be longer than any file name


def _is_module(name: str) -> bool:
    return re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", name) is not None
