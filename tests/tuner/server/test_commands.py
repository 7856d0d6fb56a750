"""The commands of the service that need its database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import typer
from typer.testing import CliRunner

from storage import open_storage
from tuner.server.commands import add_commands


def test_a_new_database_can_be_read_by_its_user_alone(tmp_path: Path) -> None:
    app = typer.Typer()
    add_commands(app, open_storage)
    before = os.umask(0o022)
    try:
        url = f"sqlite:///{tmp_path}/service.db"
        assert CliRunner().invoke(app, ["token", "create", "ana", "--storage", url]).exit_code == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "service.db").stat().st_mode) == 0o600
