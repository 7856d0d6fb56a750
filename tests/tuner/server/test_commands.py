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
    add_commands(app, typer.Typer(), open_storage)
    before = os.umask(0o022)
    try:
        url = f"sqlite:///{tmp_path}/service.db"
        assert CliRunner().invoke(app, ["token", "create", "ana", "--storage", url]).exit_code == 0
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "service.db").stat().st_mode) == 0o600


def test_db_clean_removes_old_files(tmp_path: Path) -> None:
    database = typer.Typer()
    database.callback()(lambda: None)
    add_commands(typer.Typer(), database, open_storage)
    url = f"sqlite:///{tmp_path}/service.db"
    with open_storage(url) as store:
        digest = store.queue.put_file(b"x" * 2**20)
        clean = ["clean", "--storage", url]
        unchanged = CliRunner().invoke(database, clean)
        assert (unchanged.exit_code, unchanged.stdout) == (0, "removed 0 files with 0.0 MiB\n")
        assert store.reads.file_size(digest) == 2**20
        wrong = CliRunner().invoke(database, [*clean, "--unused", "soon"])
        assert "--unused: 'soon' is not a duration" in str(wrong.exception)
        gone = CliRunner().invoke(database, [*clean, "--unused", "0.001s", "--ended", "90d"])
        assert gone.stdout == "removed 1 file with 1.0 MiB\n"
        assert store.reads.file_size(digest) is None
        assert store.tokens.audit_log()[0].action == "files.clean"
