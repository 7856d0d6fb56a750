"""The fork server: a process that imports torch once, and then forks the process of every local rank.

It replaces the `forkserver` start method of `multiprocessing`, which imports the caller's main module again
in every rank, and blocks the caller until the modules are preloaded. Measured by `benchmarks/rank_startup.py`
(two cores shared with other work, medians of five):

- With preloaded modules, 1, 2 and 8 new ranks have entered their function after 0.04, 0.12 and 0.41 s; with
  `multiprocessing` after 0.11, 0.70 and 3.5 s.
- Without preloaded modules, both take equally long. This server blocks the caller for 0.02 s;
  `multiprocessing` blocks it for 9 to 48 s.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from tuner.domain.parent_death import die_with_parent, outlive_parent
from tuner.launchers import rank_process

#: Format of a request of the tuner: operation, and the number (key) by which both sides identify the rank.
REQUEST = struct.Struct("=cq")
#: Format of a report of the server: event, key of the rank, and the rank's process number or exit code.
REPORT = struct.Struct("=cqq")

FORK, KILL = b"f", b"k"
FORKED, EXITED = b"f", b"x"

_CHECK_TUNER_SECONDS = 1.0


def main(*, control_descriptor: int, tuner_process: int, preload: Sequence[str]) -> NoReturn:
    """Serves requests until the tuner has ended, then kills every rank and ends.

    If the tuner ends while the modules are imported, which takes seconds, the kernel kills this process:
    `warm_ranks` requests that before it imports this file.

    Args:
        control_descriptor: File descriptor of the socket for requests of the tuner and reports to it.
        tuner_process: Process number of the tuner.
        preload: Modules to import before the first fork.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for module in preload:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    # From now on, the closed socket shows that the tuner has ended, and there may be ranks to kill.
    outlive_parent()
    with contextlib.suppress(ConnectionError):
        _ForkServer(socket.socket(fileno=control_descriptor), tuner_process).serve()
    os._exit(0)


class _ForkServer:
    def __init__(self, control: socket.socket, tuner_process: int) -> None:
        self._control = control
        self._tuner_process = tuner_process
        self._key_of: dict[int, int] = {}
        self._wake, wake_write = os.pipe()
        os.set_blocking(self._wake, False)
        os.set_blocking(wake_write, False)
        self._wake_write = wake_write
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)

    def serve(self) -> None:
        """Executes requests and reports the ends of ranks, until the tuner has ended."""
        control = self._control.fileno()
        try:
            while os.getppid() == self._tuner_process:
                ready, _, _ = select.select([control, self._wake], [], [], _CHECK_TUNER_SECONDS)
                if self._wake in ready:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                self._report_deaths()
                if control in ready and not self._answer():
                    return
        finally:
            for process in self._key_of:
                kill_group(process)

    def _answer(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, REQUEST.size, 1)
        if len(data) < REQUEST.size:
            return False
        operation, key = REQUEST.unpack(data)
        if operation == FORK:
            self._fork(key, descriptors[0])
        elif operation == KILL:
            for process, known in self._key_of.items():
                if known == key:
                    kill_group(process)
        return True

    def _fork(self, key: int, descriptor: int) -> None:
        server = os.getpid()
        process = os.fork()
        if process == 0:
            self._become_rank(descriptor, server)
        os.close(descriptor)
        self._key_of[process] = key
        self._control.sendall(REPORT.pack(FORKED, key, process))

    def _become_rank(self, descriptor: int, server: int) -> NoReturn:
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            die_with_parent(server)
            os.close(self._wake)
            os.close(self._wake_write)
            self._control.close()
            rank_process.serve(socket.socket(fileno=descriptor))
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _report_deaths(self) -> None:
        while self._key_of:
            process, status = os.waitpid(-1, os.WNOHANG)
            if process == 0:
                return
            # Kill the processes that the rank has started.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process, signal.SIGKILL)
            key = self._key_of.pop(process, None)
            if key is not None:
                code = os.waitstatus_to_exitcode(status)
                self._control.sendall(REPORT.pack(EXITED, key, code))


def kill_group(process: int) -> None:
    """Kills a process and all processes of its group; does nothing if the process has ended.

    Args:
        process: Process number of the leader of the group.
    """
    for kill in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(process, signal.SIGKILL)
