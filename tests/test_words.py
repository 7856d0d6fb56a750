"""Identifiers and file names use the field's words, and none of the words that those replaced."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Words that no identifier holds, and what to say instead.
REPLACED = {
    "look looks looked": "short probe, or evaluation",
    "told": "reported, observed",
    "begun": "started",
    "lived": "elapsed",
    "piece pieces": "slice in flight, or part",
    "party parties": "membership",
    "cut": "consistent snapshot",
    "rest hold": "pause barrier",
    "standing standings": "rank status, status table",
    "weighing worth": "acquisition",
    "stride strides": "step chunk",
    "apart": "asynchronous",
    "placed": "topology-aware",
    "kept": "stored, persistent",
    "in_reach out_of_reach": "feasible, reachable",
    "doorbell doorbells bell bells rope ropes": "wake-up socket",
    "mail letter letters parcel parcels": "mailbox, message, send buffer",
    "courier couriers": "I/O thread",
    "voice voices": "progress reporter",
    "patience": "timeout",
    "copies": "snapshots",
    "mark marks": "evaluation point",
    "room rooms": "capacity",
    "beside together": "concurrency",
    "carry carries carried": "resume on other nodes",
    "starter starters": "node agent",
    "engine engines": "scheduler backend",
    "outlives outlived": "tolerates rank loss",
    "setting": "context (of a search)",
    "dear dearer dearest": "expensive",
    "put_right": "fixed",
}
INSTEAD = {word: better for words, better in REPLACED.items() for word in words.split()}
#: The name of a test is a sentence, in which these are ordinary English.
ORDINARY = {
    *(
        "apart",
        "beside",
        "carried",
        "carry",
        "copies",
        "cut",
        "hold",
        "kept",
        "look",
        "looks",
        "mark",
        "marks",
    ),
    *("piece", "placed", "rest", "room", "setting", "together", "worth"),
}
#: What may stay, where, and why.
EXCEPTIONS = (
    ("mark marks", "tests/", "pytest's markers"),
    (
        "engine Engine _engine create_engine engine_for engine_options engine_kwargs",
        "storage/",
        "SQLAlchemy's",
    ),
    ("engine Engine _engine create_engine engine_for", "tests/storage/", "SQLAlchemy's"),
    ("engine create_engine", "benchmarks/soak_load.py", "SQLAlchemy's"),
    ("engine create_engine", "benchmarks/soak_postgres.py", "SQLAlchemy's"),
    ("engine engine_for", "benchmarks/service.py", "SQLAlchemy's"),
    ("stride", "tuner/strategies/", "of a tensor's memory, as torch names it"),
    ("stride", "tuner/workloads/", "of a convolution, as torch names it"),
    ("kept", "tuner/workloads/", "their source is part of the fingerprint: studies would not be resumed"),
    ("stride", "tests/tuner/strategies/test_flat.py", "of a tensor's memory, as torch names it"),
    ("stride", "tests/tuner/workloads/", "of a convolution, as torch names it"),
    (
        "room rooms ROOMS room_of test_the_rooms_are_those_of_the_layout",
        "tests/test_floors.py",
        "folders of the layout; capacity is something else",
    ),
)


def words_of(identifier: str) -> set[str]:
    """The words of an identifier in lower case, and each two and three in a row joined by underscores."""
    parts = re.findall(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+", identifier)
    words = [part.lower() for part in parts]
    groups = (words[i : i + length] for length in (1, 2, 3) for i in range(len(words)))
    return {"_".join(group) for group in groups}


@functools.cache
def found_in(identifier: str) -> set[str]:
    """The replaced words that an identifier holds."""
    found = words_of(identifier) & INSTEAD.keys()
    return found - ORDINARY if identifier.startswith("test_") else found


def is_excepted(identifier: str, path: str) -> bool:
    return any(identifier in names.split() and path.startswith(where) for names, where, _ in EXCEPTIONS)


def identifiers(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every name in a file, those inside f-strings too."""
    for node in ast.walk(ast.parse(source)):
        line = getattr(node, "lineno", 0)
        for field in ("id", "attr", "name", "arg", "asname", "rest"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield from ((line, part) for part in name.split("."))
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from ((line, part) for part in node.module.split("."))


@functools.cache
def identifiers_of(path: str) -> list[tuple[int, str]]:
    return list(identifiers((ROOT / path).read_text()))


def complaints(path: str) -> Iterator[str]:
    for line, name in identifiers_of(path):
        for word in sorted(found_in(name)):
            if not is_excepted(name, path):
                yield f"{path}:{line}: {name}: say {INSTEAD[word]!r} instead of {word!r}"


def sources() -> list[str]:
    folders = ("search_spaces", "tuner", "storage", "tests", "benchmarks", "examples")
    files = [*ROOT.glob("*.py"), *(path for folder in folders for path in (ROOT / folder).rglob("*.py"))]
    return sorted(str(path.relative_to(ROOT)) for path in files)


@pytest.mark.xdist_group("words")
def test_no_identifier_holds_a_replaced_word() -> None:
    paths = sources()
    assert len(paths) > 300
    found: Iterable[str] = (c for path in paths for c in complaints(path))
    assert sorted(set(found)) == []


def test_no_file_is_named_by_a_replaced_word() -> None:
    found = {
        path: set().union(*(found_in(part) for part in Path(path).with_suffix("").parts))
        for path in sources()
    }
    # `storage/engine.py` makes SQLAlchemy's engine.
    assert {path: words for path, words in found.items() if words} == {"storage/engine.py": {"engine"}}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("_look_seconds", {"look"}),
        ("BegunRun", {"begun"}),
        ("OUT_OF_REACH", {"out_of_reach"}),
        ("lookup", set()),
        ("test_what_is_kept_together", set()),
        ("test_a_begun_run_ends", {"begun"}),
    ],
)
def test_a_replaced_word_is_found_in_any_spelling(name: str, words: set[str]) -> None:
    assert found_in(name) == words


@pytest.mark.xdist_group("words")
def test_every_exception_is_needed() -> None:
    stated = {(name, where) for names, where, _ in EXCEPTIONS for name in names.split()}
    needed = {
        (name, where)
        for path in sources()
        for _, name in identifiers_of(path)
        for stated_name, where in stated
        if name == stated_name and path.startswith(where)
    }
    assert needed == stated


def test_names_inside_of_f_strings_are_seen() -> None:
    assert [name for _, name in identifiers("print(f'{begun_at:.1f}')")] == ["print", "begun_at"]
