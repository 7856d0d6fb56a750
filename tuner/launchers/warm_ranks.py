"""The tuner's side of the fork server: requests ranks, exchanges messages with them, notices their exits."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.domain.errors import ProbeError
from tuner.launchers.fork_server import EXITED, FORK, FORKED, KILL, REPORT, REQUEST, kill_group
from tuner.launchers.rank_process import encoded

#: The program of the fork server. First it asks the kernel to kill it when the tuner ends, before imports
#: that take long.
_BOOT = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.path[:] = arguments.pop("import_path")
from tuner.domain.parent_death import die_with_parent
die_with_parent(arguments["tuner_process"])
from tuner.launchers.fork_server import main
main(**arguments)
"""


class WarmRank:
    """The tuner's connection to the process of a rank; no method waits.

    Attributes:
        key: Number by which the fork server identifies the rank.
        process: Process number of the rank; None until it was forked.
        exit_code: Exit code of the process, negative for a signal; None while it runs, or if unknown.
        ended: Whether the process has ended.
    """

    def __init__(self, key: int, connection: socket.socket) -> None:
        self.key = key
        self.process: int | None = None
        self.exit_code: int | None = None
        self.ended = False
        self._connection = connection
        self._connection.setblocking(False)
        self._incoming, self._outgoing = bytearray(), bytearray()

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; if the socket is full, `receive` sends the remaining bytes later."""
        self._outgoing += encoded(message)
        self._flush()

    def receive(self) -> list[dict[str, Any]]:
        """Returns the messages that were received completely since the last call."""
        self._flush()
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while data := self._connection.recv(1 << 16):
                self._incoming += data
        whole, separator, self._incoming = self._incoming.rpartition(b"\n")
        return [json.loads(line) for line in whole.splitlines()] if separator else []

    def has_hung_up(self) -> bool:
        """Whether an idle rank has ended. The closed connection shows this before the server reports it."""
        try:
            return self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
        except BlockingIOError:
            return False
        except OSError:
            return True

    def close(self) -> None:
        """Closes the connection to a rank that has ended or is being killed."""
        self._connection.close()

    def _flush(self) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while self._outgoing:
                sent = self._connection.send(self._outgoing)
                del self._outgoing[:sent]


class ForkServer:
    """Starts a fork server and sends requests to it; the server is ready when it has imported the modules.

    The thread that creates this object must not end before the server is ready, or the kernel kills the
    server.

    Args:
        environment: Environment variables of the server and of the processes that it forks.
        preload: Modules to import before the first fork.

    Raises:
        ProbeError: The server cannot be started.
    """

    def __init__(self, *, environment: Mapping[str, str], preload: Sequence[str]) -> None:
        self._keys = itertools.count()
        self._ranks: dict[int, WarmRank] = {}
        self._reports = bytearray()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._control, theirs = socket.socketpair()
        arguments = {
            "control_descriptor": theirs.fileno(),
            "tuner_process": os.getpid(),
            "preload": list(preload),
            "import_path": _trusted_import_path(),
        }
        try:
            # -P: without it a module that merely lies in the current folder would come first.
            self._popen = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, json.dumps(arguments)],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError as error:
            self._control.close()
            self._output.close()
            raise ProbeError(f"no rank can be started with {sys.executable}: {error}") from error
        finally:
            theirs.close()
        self.alive = True

    @property
    def process(self) -> int:
        """Process number of the server."""
        return self._popen.pid

    def fork(self) -> WarmRank:
        """Requests a new rank; messages can be sent to it at once, but its process number is known later."""
        ours, theirs = socket.socketpair()
        rank = WarmRank(next(self._keys), ours)
        self._ranks[rank.key] = rank
        with theirs, contextlib.suppress(ConnectionError):
            socket.send_fds(self._control, [REQUEST.pack(FORK, rank.key)], [theirs.fileno()])
        return rank

    def drain(self) -> None:
        """Reads the server's reports of ranks that were forked or have ended, without waiting."""
        while self.alive:
            try:
                data = self._control.recv(1 << 16, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except ConnectionError:
                data = b""
            if not data:
                self._note_death()
                break
            self._reports += data
        while len(self._reports) >= REPORT.size:
            event, key, value = REPORT.unpack_from(self._reports)
            del self._reports[: REPORT.size]
            if (rank := self._ranks.get(key)) is None:
                continue
            if event == FORKED:
                rank.process = value
            elif event == EXITED:
                rank.exit_code, rank.ended = value, True
                del self._ranks[key]

    def end(self, ranks: Iterable[WarmRank], *, wait_seconds: float = 2.0) -> None:
        """Kills ranks with all their children, and waits until they have ended.

        It does not wait for ranks that were not forked yet: the server kills them right after it forks them.

        Args:
            ranks: The ranks.
            wait_seconds: Longest time to wait, seconds.
        """
        self.drain()
        given = list(ranks)
        doomed = [rank for rank in given if not rank.ended]
        for rank in doomed:
            if rank.process is not None:
                kill_group(rank.process)
            with contextlib.suppress(ConnectionError):
                self._control.sendall(REQUEST.pack(KILL, rank.key))
        deadline = time.monotonic() + wait_seconds
        reports = select.poll()
        reports.register(self._control, select.POLLIN)
        while any(rank.process is not None and not rank.ended for rank in doomed):
            if not self.alive or (remaining := deadline - time.monotonic()) <= 0:
                break
            reports.poll(remaining * 1000)
            self.drain()
        for rank in given:
            rank.close()

    def output(self) -> str:
        """Returns the last lines that the fork server itself has printed, for error messages."""
        self._output.seek(0)
        return self._output.read()[-4000:].decode(errors="replace").strip()

    def close(self) -> None:
        """Ends every rank and the server."""
        self.end(list(self._ranks.values()))
        self._control.close()
        self._popen.kill()
        self._popen.wait()
        self._output.close()

    def _note_death(self) -> None:
        """Kills the ranks of a server that has ended; on Linux, the kernel has killed them already."""
        self.alive = False
        self._popen.kill()
        self._popen.wait()
        for rank in self._ranks.values():
            if rank.process is not None:
                kill_group(rank.process)
            rank.ended = True
        self._ranks.clear()


def _trusted_import_path() -> list[str]:
    """Returns the tuner's import path without the current folder, unless Paceline is in that folder."""
    here = str(Path.cwd())
    home = str(Path(__file__).resolve().parents[2])
    return [entry for entry in sys.path if entry and (entry != here or entry == home)]
