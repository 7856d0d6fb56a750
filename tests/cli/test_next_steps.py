from __future__ import annotations

import shlex
from pathlib import Path

import pytest
import typer

import cli
from tests.cli.conftest import Command
from tuner.service.next_steps import NEXT_STEPS


def commands(app: typer.Typer, group: str = "") -> dict[str, bool]:
    """All commands of the command line, and whether they are hidden."""
    found = {}
    for info in app.registered_commands:
        assert info.callback is not None
        name = info.name or info.callback.__name__.replace("_", "-")
        found[f"{group} {name}".strip()] = info.hidden
    for inner in app.registered_groups:
        assert inner.typer_instance is not None
        found |= commands(inner.typer_instance, inner.name or str(inner.typer_instance.info.name))
    return found


def test_every_command_has_a_next_step_that_is_a_command() -> None:
    known = commands(cli.app)
    assert set(NEXT_STEPS) == {name for name, is_hidden in known.items() if not is_hidden}
    for step in NEXT_STEPS.values():
        words = step.split()
        assert words[0] in known or " ".join(words[:2]) in known


def test_a_command_ends_with_the_next_one_on_stderr(paceline: Command, tmp_path: Path) -> None:
    job = tmp_path / "my job.toml"
    ended = paceline("init", job)
    assert ended.stderr.splitlines()[-1] == f"Next: paceline check {shlex.quote(str(job))}"
    assert "Next" not in ended.stdout


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_output_for_programs_has_no_next_step(paceline: Command, tmp_path: Path, output_format: str) -> None:
    listed = ("token", "list", "--storage", f"sqlite:///{tmp_path / 'service.db'}")
    assert paceline(*listed).stderr.endswith("Next: paceline token create NAME\n")
    assert "Next:" not in paceline(*listed, "--format", output_format).stderr


def test_an_error_ends_with_what_to_do_next(paceline: Command, tmp_path: Path) -> None:
    job = tmp_path / "job.toml"
    missing = paceline("run", job)
    assert (missing.code, missing.stderr.splitlines()[-1]) == (2, f"Next: paceline init {job}")
    paceline("init", job, "--example", "digits")
    unknown = paceline("status", job)
    assert (unknown.code, unknown.stderr.splitlines()[-1]) == (2, f"Next: paceline run {job}")
    wrong = paceline("run", job, "--budget", "soon")
    assert (wrong.code, wrong.stderr.splitlines()[-1]) == (2, f"Next: paceline check {job}")
