"""Imports run down the floors; what the command line needs is free of torch."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: Lowest first. Rooms in one inner set do not know each other; a room may import itself and what lies below.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"search_spaces"}),
    # Plain data and errors. Within it, `errors` lies below the rest.
    frozenset({"tuner.domain"}),
    # `tuner.workload` is the deprecated import path of what `paceline` exports.
    frozenset({"tuner.recordings", "tuner.workload", "tuner.launchers"}),
    frozenset({"tuner.job", "tuner.transport", "tuner.workloads"}),
    frozenset({"tuner.strategies", "tuner.analytic", "tuner.past_runs"}),
    frozenset({"tuner.emulation", "tuner.calibration"}),
    frozenset({"tuner.probes"}),
    frozenset({"tuner.search", "tuner.drafting"}),
    frozenset({"tuner.advice"}),
    frozenset({"tuner.report"}),
    frozenset({"tuner.service"}),
    frozenset({"tuner.server"}),
    frozenset({"storage"}),
    frozenset({"cli", "paceline"}),
)
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
#: Folders and loose files that hold the product, as a newcomer sees them.
ROOMS = {
    *("search_spaces", "storage", "storage.migrations", "cli", "paceline"),
    *("tuner.workload", "tuner.domain", "tuner.recordings", "tuner.job", "tuner.transport"),
    *("tuner.workloads", "tuner.strategies", "tuner.launchers", "tuner.analytic"),
    *("tuner.emulation", "tuner.calibration", "tuner.probes", "tuner.probes.commands", "tuner.probes.ranks"),
    *("tuner.drafting", "tuner.search", "tuner.advice", "tuner.past_runs", "tuner.report"),
    *("tuner.server", "tuner.service"),
}
PACKAGES = ("search_spaces", "tuner", "storage", "cli", "paceline")

TORCH_FREE = (
    "cli",
    "paceline",
    "search_spaces",
    "storage",
    "tuner.advice",
    "tuner.analytic",
    "tuner.domain",
    "tuner.drafting",
    "tuner.job",
    "tuner.launchers",
    "tuner.past_runs",
    "tuner.recordings",
    "tuner.report",
    "tuner.search",
    "tuner.server",
    "tuner.service",
)

#: Within the torch-free rooms: only ranks import these.
NEEDS_TORCH = {"tuner.domain.data_order"}

VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "core"}


def source_files() -> list[Path]:
    found = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return sorted([*found, ROOT / "cli.py", ROOT / "paceline.py"])


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    if not module.startswith("tuner"):
        return module.partition(".")[0]
    return ".".join(module.split(".")[:2])


def imported_names(tree: ast.AST) -> Iterator[str]:
    """Full names of all imports, those inside functions and `if TYPE_CHECKING` too; "." for relative ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "."
            elif node.module in PACKAGES:
                # `from tuner import job` names a room by what is imported.
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield str(node.module)


def own_imports(path: Path) -> list[str]:
    names = imported_names(ast.parse(path.read_text(), str(path)))
    return [name for name in names if name == "." or name.partition(".")[0] in PACKAGES]


def offence(importer: str, imported: str) -> str | None:
    """What speaks against one import, or None."""
    if imported == ".":
        return f"{importer} imports relatively; write the import in full"
    own, other = room_of(importer), room_of(imported)
    if other not in FLOOR_OF:
        return f"{importer} imports {imported}, whose room {other} has no floor"
    if own != other and FLOOR_OF[other] >= FLOOR_OF[own]:
        return f"{importer} (floor {FLOOR_OF[own]}) imports {imported} (floor {FLOOR_OF[other]})"
    return None


def test_every_module_lies_on_a_floor() -> None:
    rooms = {room_of(module_name(path)) for path in source_files()} - {"tuner"}
    assert rooms == set(FLOOR_OF)


def test_the_rooms_are_those_of_the_layout() -> None:
    holders = {
        module_name(path.parent / "__init__.py")
        if path.parent not in (ROOT, ROOT / "tuner")
        else module_name(path)
        for path in source_files()
        if path.name != "__init__.py"
    }
    assert holders == ROOMS


def test_errors_lie_below_all_other_files_of_the_domain() -> None:
    assert own_imports(ROOT / "tuner" / "domain" / "errors.py") == []


def imported_modules(path: Path, files: Collection[str]) -> set[str]:
    """Those of the files that a file imports; `from package import module` leads to the module alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            found.update(name if name in files else node.module for name in names)
    return found & set(files)


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """Sets of files that import each other in a loop."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        found: set[str] = set()
        waiting = list(edges[start])
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(edges.get(name, ()))
        reached[start] = found
    groups = {frozenset(o for o in reached[name] if name in reached.get(o, ())) for name in edges}
    return [set(group) for group in groups if len(group) > 1]


def test_no_files_import_each_other_in_a_circle() -> None:
    files = {module_name(path): path for path in source_files()}
    edges = {
        name: {other for other in imported_modules(path, files) if other != name}
        for name, path in files.items()
    }
    assert sum(map(len, edges.values())) > 500
    assert circles(edges) == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == [{"b", "c"}]


def test_imports_run_down_the_floors() -> None:
    found = [
        offence(module_name(path), imported) for path in source_files() for imported in own_imports(path)
    ]
    assert len(found) > 50
    assert [words for words in found if words] == []


@pytest.mark.parametrize(
    ("importer", "code", "words"),
    [
        ("tuner.job.model", "from tuner.search.loop import Search", "floor"),
        ("tuner.launchers.local", "def f():\n    import tuner.search.loop", "floor"),
        ("tuner.advice.recommend", "from tuner.report.pages import report_html", "floor"),
        ("tuner.search.loop", "if TYPE_CHECKING:\n    from storage.tables import probes", "floor"),
        ("tuner.job.model", "from tuner import workloads", "floor"),
        ("tuner.probes.ranks.rank", "from .replica import Replica", "relatively"),
        ("tuner.service.run", "import tuner.attic", "no floor"),
    ],
)
def test_an_import_that_climbs_is_found(importer: str, code: str, words: str) -> None:
    found = [offence(importer, imported) for imported in imported_names(ast.parse(code))]
    assert any(words in (found_words or "") for found_words in found)


def test_packages_re_export_only_their_own_room() -> None:
    strangers = {
        (module_name(path), imported)
        for path in source_files()
        if path.name == "__init__.py"
        for imported in own_imports(path)
        if not f"{imported}.".startswith(f"{module_name(path)}.")
    }
    assert strangers == set()


def test_the_package_tuner_holds_a_docstring_and_nothing_else() -> None:
    tree = ast.parse((ROOT / "tuner" / "__init__.py").read_text())
    assert ast.get_docstring(tree)
    assert len(tree.body) == 1


def test_no_file_has_a_name_that_says_nothing() -> None:
    folders = [ROOT / name for name in ("search_spaces", "tuner", "storage", "tests", "benchmarks")]
    paths = [path.relative_to(ROOT) for folder in folders for path in folder.rglob("*.py")]
    assert [path for path in paths if VAGUE_NAMES & set(path.with_suffix("").parts)] == []


IMPORT_ALL = """
import importlib, json, sys
guilty = {}
for module in json.loads(sys.argv[1]):
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        # What needs an extra that is not installed is imported by whoever has it.
        if error.name not in ("ray", "submitit", "tensorboard", "psycopg"):
            raise
    if "torch" in sys.modules:
        guilty = {"module": module}
        break
print(json.dumps(guilty))
"""


def test_what_the_command_line_needs_does_not_import_torch() -> None:
    modules = [
        name
        for name in map(module_name, source_files())
        # Alembic's environment and the migrations run only inside of Alembic.
        if any(f"{name}.".startswith(f"{room}.") for room in TORCH_FREE)
        and ".migrations" not in name
        and name != "storage.env"
        and name not in NEEDS_TORCH
    ]
    assert {room_of(name) for name in modules} >= {"cli", "storage", "tuner.domain", "tuner.report"}
    answer = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, json.dumps(modules)], cwd=ROOT, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout) == {}


def impurities(tree: ast.AST) -> Iterator[str]:
    """What a module of formulas has no business with: torch, clocks, chance of its own, files."""
    forbidden = {"torch", "time", "datetime", "random", "secrets", "os", "pathlib", "io", "subprocess"}
    for name in imported_names(tree):
        if name.partition(".")[0] in forbidden or name.startswith("numpy.random"):
            yield name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            # A generator that is handed in may be named in an annotation.
            if node.value.attr == "random" and node.attr != "Generator":
                yield f"random.{node.attr}"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open":
            yield "open"


def test_the_analytic_model_is_free_of_torch_clocks_chance_and_files() -> None:
    files = sorted((ROOT / "tuner" / "analytic").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): list(impurities(ast.parse(path.read_text()))) for path in files}
    assert found
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "from torch import nn",
        "import numpy as np\nnp.random.rand(3)",
        "from numpy.random import default_rng",
        "open('curve.csv')",
    ],
)
def test_an_impure_formula_is_found(code: str) -> None:
    assert list(impurities(ast.parse(code))) != []
