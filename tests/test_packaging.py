"""What is installed, and from what."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PINNED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([0-9][0-9a-z.]*)")


def project() -> dict[str, Any]:
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(requirements: list[str]) -> set[str]:
    return {canonical(re.split(r"[\s\[<>=!~;]", requirement)[0]) for requirement in requirements}


def pinned() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    matches = [PINNED.fullmatch(line) for line in lines if line and not line.startswith("#")]
    assert all(matches), "every line pins one version, without a host or a local suffix such as +cpu"
    return {canonical(match[1]): match[2] for match in matches if match}


def test_whatever_make_installs_is_pinned() -> None:
    table = project()["project"]
    extras = table["optional-dependencies"]
    (reference,) = (wanted for wanted in extras["dev"] if wanted.startswith("paceline["))
    named = re.fullmatch(r"paceline\[(.+)\]", reference)
    assert named is not None
    assert "test" in named[1].split(",")
    lists = [table["dependencies"], extras["dev"], *(extras[name] for name in named[1].split(","))]
    wanted = required([requirement for part in lists for requirement in part]) - {"paceline"}
    assert wanted | required(project()["build-system"]["requires"]) <= set(pinned())


def test_mutmut_is_pinned_with_what_nothing_else_needs() -> None:
    wanted = required(project()["project"]["optional-dependencies"]["mutation"])
    assert wanted | {"coverage", "libcst", "setproctitle", "textual"} <= set(pinned())


def test_torch_is_pinned_to_a_build_that_is_small() -> None:
    assert pinned()["torch"] == "2.13.0"


def test_the_suite_runs_on_the_pinned_versions() -> None:
    from importlib.metadata import version

    for name in required(project()["project"]["dependencies"]):
        assert version(name).partition("+")[0] == pinned()[name], name


def test_every_dependency_has_its_reason_in_the_guide_to_contributing() -> None:
    table = project()["project"]
    lists = [table["dependencies"], *table["optional-dependencies"].values()]
    section = (ROOT / "CONTRIBUTING.md").read_text().split("## What Paceline depends on")[1].split("\n## ")[0]
    rows = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    explained = {canonical(name) for names, _ in rows for name in re.findall(r"`([^`]+)`(?!\))", names)}
    assert all(reason.strip() for _, reason in rows)
    assert explained == required([requirement for part in lists for requirement in part]) - {"paceline"}


def test_the_license_is_the_whole_apache_2_0() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert project()["project"]["license"] == "Apache-2.0"


def test_the_changelog_speaks_of_the_version_that_is_built() -> None:
    assert f"## [{project()['project']['version']}]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_says_what_it_would_do_without_doing_it() -> None:
    answer = subprocess.run(
        ["make", "--dry-run", "demo", "test", "test-all", "soak", "lint"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for command in (
        "paceline run examples/digits.toml",
        "--fast",
        "--if-installed .venv/bin/python -m pytest",
        "benchmarks.soak",
        "ruff check",
        "ruff format --check",
        "mypy",
    ):
        assert command in answer.stdout


@pytest.mark.slow
def test_the_wheel_holds_the_packages_the_command_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )
    (wheel,) = tmp_path.glob("paceline-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry_points,) = (name for name in names if name.endswith("entry_points.txt"))
        assert "paceline = cli:main" in archive.read(entry_points).decode()
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {
        "search_spaces",
        "tuner",
        "storage",
        "cli.py",
        "paceline.py",
        "paceline_client.py",
        "paceline_remote.py",
    }
    sources = {
        str(path.relative_to(ROOT))
        for package in ("search_spaces", "tuner", "storage")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names
    assert {f"tuner/examples/{path.name}" for path in (ROOT / "examples").iterdir()} <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
