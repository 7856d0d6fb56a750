"""Checks the files that submitted jobs bring: their names, and that they are data unless code is allowed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import PurePosixPath

from tuner.domain.errors import JobError

#: Endings of data files. Files with other endings, such as .py, .so, .pth (which torch.load executes) and
#: files without an ending, count as code.
_DATA = frozenset(
    f".{ending}"
    for endings in (
        "arrow bin csv feather idx json jsonl md ndjson npy npz parquet safetensors tfrecord",
        "toml tsv txt yaml yml",
        "bmp flac gif jpeg jpg mp3 png tif tiff wav webp",
        "bz2 gz xz zst",
    )
    for ending in endings.split()
)
#: Data files that programs read from their working folder as settings, which can name code to run.
_SETTINGS = frozenset(("pyproject.toml", "package.json", "mkdocs.yml", "conda.yml", "environment.yml"))
#: Beginnings of files that the system executes, whatever their name.
_EXECUTABLE = (b"#!", b"\x7fELF", b"MZ", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe")
_LONGEST_NAME, _LONGEST_PATH, _MOST_FOLDERS = 200, 1000, 16


def name_refusal(name: str) -> str:
    """Returns why a name is not a path inside a workspace; empty if it is one."""
    place = PurePosixPath(name)
    parts = place.parts
    if place.is_absolute() or ".." in parts or not parts or "\\" in name:
        return "is not a path inside the workspace; give a path relative to the job file"
    if place.as_posix() != name:
        return f"is not in its shortest form; write {place.as_posix()!r}"
    if not name.isprintable() or any(0xD800 <= ord(character) <= 0xDFFF for character in name):
        return "has a character that cannot be printed; rename the file"
    is_long = len(name.encode()) > _LONGEST_PATH or len(parts) > _MOST_FOLDERS
    if is_long or any(len(part.encode()) > _LONGEST_NAME for part in parts):
        return (
            f"is too long; a path may have {_LONGEST_PATH} bytes and {_MOST_FOLDERS} parts of "
            f"{_LONGEST_NAME} bytes"
        )
    if any(part.startswith(("-", "~")) for part in parts):
        return "has a part that begins with - or ~, which programs take for something else; rename it"
    return ""


def refuse_names(names: Collection[str], job_file: str) -> None:
    """Checks that files can be written into one folder, beside the job file.

    Raises:
        JobError: A file has the name of a folder or of the job file.
    """
    folders = {parent.as_posix() for name in names for parent in PurePosixPath(name).parents}
    for name in names:
        if name in folders:
            raise JobError(f"files: {name!r} is a file and a folder; rename one")
        if PurePosixPath(name).parts[0] == job_file:
            raise JobError(f"files: {name!r} has the name of the job file; rename it")


def code_refusal(name: str, start: bytes, *, words: Collection[str], packages: Mapping[str, str]) -> str:
    """Returns why a file counts as code; empty if it is data.

    Args:
        name: Path of the file in the workspace.
        start: The first bytes of its content.
        words: Words of commands that name a program or script.
        packages: Maps the first part of each import path of a Workload that the server allows to the path.
    """
    place = PurePosixPath(name)
    if place.parts[0] in packages or place.stem in packages:
        return f"would take the place of {packages.get(place.parts[0]) or packages[place.stem]}"
    if place.name in {PurePosixPath(word).name for word in words}:
        return "has the name of a word of the command"
    if any(part.startswith(".") for part in place.parts):
        return "is a hidden file"
    if place.name.lower() in _SETTINGS:
        return "is a settings file of programs"
    if place.suffix.lower() not in _DATA:
        return f"has the ending {place.suffix!r}" if place.suffix else "has no ending"
    if start.startswith(_EXECUTABLE):
        return "begins like a program"
    return ""
