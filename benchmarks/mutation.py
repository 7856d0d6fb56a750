"""Mutation testing: how many small faults, put into a file, its own tests find.

    pip install -c constraints.txt -e '.[dev,mutation]'
    python -m benchmarks.mutation [--only tuner/domain/cluster.py] [--processes 2]

mutmut makes the faults (mutants). The tests of a file kill a mutant when one of them fails or takes too long.
Tests of other files do not count. Each mutant that survives is listed with the reason that
`mutation_survivors.toml` gives. The exit status is 1 if the tests of a file kill less than 85% of its
mutants, if a survivor has no reason, or if a reason has no survivor.

mutmut does not change what runs at import (constants, default values of fields, decorators) or properties.
"""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "mutation.json"
REASONS = ROOT / "benchmarks" / "mutation_survivors.toml"

#: Each file and the tests that mirror it.
TESTS = {
    "tuner/domain/checkpoints.py": "tests/tuner/domain/test_checkpoints.py",
    "tuner/domain/leases.py": "tests/tuner/domain/test_leases.py",
    "tuner/search/stopping.py": "tests/tuner/search/test_stopping.py",
}
SHARE_WANTED = 0.85

#: What the tests import; mutmut works on a copy of it.
_COPIED = (
    "search_spaces",
    "tuner",
    "storage",
    "tests",
    "benchmarks",
    "cli.py",
    "paceline.py",
    "paceline_client.py",
)
_TIMED_OUT = "timeout"
_KILLED, _SURVIVED = {"killed", _TIMED_OUT, "segfault"}, {"survived", "no tests"}

# A mutant may take (1 s + the seconds of the tests that reach it) x 6: beyond that it loops.
_SETTINGS = """

[tool.mutmut]
source_paths = [{file}]
also_copy = {copied}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = [{tests}]
timeout_constant = 1.0
timeout_multiplier = 6.0
use_git_change_detection = false
track_dependencies = false
"""


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a mutant changes.

    Args:
        file: The file.
        function: The function, or `Class.method`.
        before: The changed lines as they are.
        after: The changed lines of the mutant.
    """

    file: str
    function: str
    before: str
    after: str


@dataclass(frozen=True, kw_only=True)
class Survivor:
    """A mutant that no test noticed.

    Args:
        line: Line of the file at which the change begins.
        change: What it changes.
    """

    line: int
    change: Change


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """The mutants of one file.

    Args:
        file: The file.
        killed: How many its tests killed.
        timed_out: How many of those by taking too long.
        survivors: Those that they did not kill.
    """

    file: str
    killed: int
    timed_out: int
    survivors: tuple[Survivor, ...]

    @property
    def num_mutants(self) -> int:
        """How many were made."""
        return self.killed + len(self.survivors)

    @property
    def share_killed(self) -> float:
        """Killed mutants over all."""
        return self.killed / self.num_mutants

    def to_dict(self, reasons: Mapping[Change, str]) -> dict[str, Any]:
        """Plain data for JSON."""
        survivors = [
            {
                "function": survivor.change.function,
                "line": survivor.line,
                "before": survivor.change.before,
                "after": survivor.change.after,
                "why": reasons.get(survivor.change, ""),
            }
            for survivor in self.survivors
        ]
        return {
            "tests": TESTS[self.file],
            "mutants": self.num_mutants,
            "killed": self.killed,
            "timed_out": self.timed_out,
            "survived": len(self.survivors),
            "share_killed": round(self.share_killed, 4),
            "survivors": survivors,
        }


def mutmut(folder: Path, *arguments: str) -> str:
    """What a command of mutmut prints."""
    # `python -m mutmut` imports itself twice, and warns.
    command = [sys.executable, "-c", "from mutmut.__main__ import cli; cli()", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        said = f"{ended.stdout}{ended.stderr}"[-4000:]
        raise SystemExit(f"mutmut {' '.join(arguments)} failed:\n{said}")
    return ended.stdout


def copy_sources(folder: Path, file: str) -> None:
    """Copies what the tests of a file import, and writes the settings of mutmut beside it."""
    for name in _COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / name, folder / name)
    settings = _SETTINGS.format(
        file=json.dumps(file), copied=json.dumps(_COPIED), tests=json.dumps(TESTS[file])
    )
    (folder / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + settings)


def kill_mutants(file: str, processes: int) -> FileResult:
    """Makes the mutants of a file and runs its tests on each."""
    with tempfile.TemporaryDirectory(prefix="paceline-mutation-") as name:
        folder = Path(name)
        copy_sources(folder, file)
        mutmut(folder, "run", "--max-children", str(processes))
        states = dict(states_in(mutmut(folder, "results", "--all", "true")))
        unclear = {mutant: state for mutant, state in states.items() if state not in _KILLED | _SURVIVED}
        if unclear or not states:
            raise SystemExit(f"mutmut did not test every mutant of {file}: {unclear or 'there is none'}")
        source = (ROOT / file).read_text()
        survivors = [
            survivor(file, source, mutant, mutmut(folder, "show", mutant))
            for mutant, state in states.items()
            if state in _SURVIVED
        ]
    return FileResult(
        file=file,
        killed=sum(state in _KILLED for state in states.values()),
        timed_out=sum(state == _TIMED_OUT for state in states.values()),
        survivors=tuple(sorted(survivors, key=lambda found: (found.line, found.change.after))),
    )


def states_in(listing: str) -> Iterator[tuple[str, str]]:
    """Mutants and their states from what `mutmut results` prints."""
    for line in listing.splitlines():
        mutant, _, state = line.strip().rpartition(": ")
        if "__mutmut_" in mutant:
            yield mutant, state


def survivor(file: str, source: str, mutant: str, diff: str) -> Survivor:
    """A survivor from mutmut's name of it and the diff of its function.

    Args:
        file: Its file.
        source: The content of the file.
        mutant: Such as `tuner.search.stopping.x_arrival__mutmut_1`; for a method
            `...xǁChargeǁ__add____mutmut_1`.
        diff: A unified diff whose line 1 is the `def` of the function.
    """
    mangled = mutant.rpartition("__mutmut_")[0].rpartition(".")[2]
    function = mangled.removeprefix("xǁ").replace("ǁ", ".") if "ǁ" in mangled else mangled.removeprefix("x_")
    header = re.search(r"^@@ -(\d+).*\n", diff, re.MULTILINE)
    assert header is not None, "a mutant differs from its function"
    lines = diff[header.end() :].splitlines()
    lead = next(index for index, line in enumerate(lines) if line.startswith(("-", "+")))
    change = Change(
        file=file,
        function=function,
        before=" ".join(line[1:].strip() for line in lines if line.startswith("-")),
        after=" ".join(line[1:].strip() for line in lines if line.startswith("+")),
    )
    return Survivor(line=first_line(source, function) + int(header[1]) - 1 + lead, change=change)


def first_line(source: str, function: str) -> int:
    """The line of the `def` of a function or `Class.method`."""
    body: list[ast.stmt] = ast.parse(source).body
    *classes, name = function.split(".")
    for class_name in classes:
        body = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name).body
    return next(node for node in body if isinstance(node, ast.FunctionDef) and node.name == name).lineno


def read_reasons(path: Path = REASONS) -> dict[Change, str]:
    """Why known mutants survive."""
    entries = tomllib.loads(path.read_text(encoding="utf-8")).get("survivor", [])
    return {Change(**{key: entry[key] for key in entry if key != "why"}): entry["why"] for entry in entries}


def problems(results: Collection[FileResult], reasons: Mapping[Change, str]) -> Iterator[str]:
    """What is wrong with the results, in words; nothing where all is well."""
    for result in results:
        if result.share_killed < SHARE_WANTED:
            yield f"{result.file}: {result.share_killed:.1%} of mutants killed, {SHARE_WANTED:.0%} wanted"
    found = {survivor.change: survivor for result in results for survivor in result.survivors}
    for change, surviving in found.items():
        if not reasons.get(change):
            yield f"{change.file}:{surviving.line} survives without a reason:\n{as_entry(change)}"
    files = {result.file for result in results}
    for change in reasons:
        if change.file in files and change not in found:
            yield f"{change.file}: no such survivor any more: {change.before} -> {change.after}"


def as_entry(change: Change) -> str:
    """A change as an entry of `mutation_survivors.toml`, its reason left open."""
    # Strings of JSON are strings of TOML.
    pairs = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in asdict(change).items()]
    return "\n".join(["[[survivor]]", *pairs, 'why = ""', ""])


def main(
    only: Annotated[list[str] | None, typer.Option(help="A file to test; all if absent.")] = None,
    processes: Annotated[int, typer.Option(help="Mutants that are tested at once.")] = 2,
) -> None:
    """Test the mutants, print a table, and write benchmarks/results/mutation.json."""
    if importlib.util.find_spec("mutmut") is None:
        raise SystemExit("mutmut is not installed: pip install -c constraints.txt -e '.[dev,mutation]'")
    unknown = sorted(set(only or ()) - set(TESTS))
    if unknown:
        raise SystemExit(f"unknown file {', '.join(unknown)}; known are {', '.join(TESTS)}")
    reasons = read_reasons()
    results = []
    for file in only or TESTS:
        results.append(kill_mutants(file, processes))
        done = results[-1]
        print(
            f"{file:24} {done.killed:4} of {done.num_mutants:4} killed, {done.share_killed:.1%}", flush=True
        )
    written = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    written.update({result.file: result.to_dict(reasons) for result in results})
    RESULTS.write_text(json.dumps(written, indent=1, ensure_ascii=False, sort_keys=True) + "\n")
    wrong = list(problems(results, reasons))
    for problem in wrong:
        print(problem, file=sys.stderr)
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
