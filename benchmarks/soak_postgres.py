"""A PostgreSQL server for one soak run, which can be restarted and can cut its connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from sqlalchemy import create_engine, text


def postgres_folder() -> Path | None:
    """Returns the folder of the programs of PostgreSQL; None if it is not installed."""
    found = os.environ.get("PG_BIN") or shutil.which("initdb")
    if found:
        path = Path(found)
        return path if path.is_dir() else path.resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return installed[-1].parent if installed else None


class PostgresServer:
    """A server on a free port of the loopback address. As root, it runs as the user postgres.

    Args:
        programs: Folder of the programs of PostgreSQL.
    """

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        self._folder = Path(tempfile.mkdtemp(prefix="soak-postgres-"))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]

    @property
    def url(self) -> str:
        """URL of the database."""
        return f"postgresql://paceline@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            shutil.chown(self._folder, "postgres")
        data = str(self._folder / "data")
        self._call(
            ["initdb", "-D", data, "-U", "paceline", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        )
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
        self._control("start", "-l", str(self._folder / "server.log"), "-o", options)

    def stop(self) -> None:
        """Stops the server at once, as a crash would."""
        self._control("stop", "-m", "immediate")

    def end_connections(self) -> int:
        """Ends all connections of other processes. Returns their number."""
        engine = create_engine(self.url.replace("postgresql:", "postgresql+psycopg:"))
        others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        with engine.connect() as connection:
            number = len(connection.execute(text(others + " AND datname IS NOT NULL")).all())
        engine.dispose()
        return number

    def _control(self, action: str, *options: str) -> None:
        self._call(["pg_ctl", "-D", str(self._folder / "data"), "-w", action, *options])

    def _call(self, command: Sequence[str]) -> None:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        line = [*user, str(self._programs / command[0]), *command[1:]]
        # The server inherits the output, so it must not be a pipe.
        subprocess.run(line, cwd="/", check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
