"""The main loop of a rank on this host: it waits for a task, runs its function, and sends the result."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

from tuner.launchers.launcher import RankContext

#: Matches errors that the exit of another rank causes.
_ECHO = re.compile(r"connection (was )?(closed|reset|refused)|broken pipe|timed out waiting|gloo|nccl", re.I)


def serve(connection: socket.socket) -> NoReturn:
    """Runs tasks until a task fails or the tuner has ended.

    Args:
        connection: Connection to the tuner, which sends tasks and receives messages and results.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_tuner(connection)
    lock = threading.Lock()

    def send(message: Mapping[str, Any]) -> None:
        data = encoded(message)
        with lock:
            connection.sendall(data)

    for line in _lines(connection):
        task = json.loads(line)
        answer = _execute(task, send)
        send(answer)
        if answer["kind"] == "failure":
            # Exiting at once breaks the collectives of the other ranks, so that they report errors too.
            os._exit(1)
        del line, task, answer
        _forget_memory()
    os._exit(0)


def _lines(connection: socket.socket) -> Iterator[bytes]:
    """Yields the lines that the tuner sends, until it has ended; an incomplete last line is ignored."""
    with contextlib.suppress(ConnectionError):
        for line in connection.makefile("rb"):
            if line.endswith(b"\n"):
                yield line


def _die_with_tuner(connection: socket.socket) -> None:
    """Starts a thread that kills this process group when the tuner has closed the connection."""

    def watch() -> None:
        hangup = select.poll()
        hangup.register(connection, 0)
        hangup.poll()
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _execute(task: Mapping[str, Any], send: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    with _output_to(Path(task["folder"]) / f"rank{task['rank']}.log"):
        try:
            _enter_surroundings(task)
            function = imported(task["function"])
            context = RankContext(
                rank=task["rank"],
                num_ranks=task["num_ranks"],
                local_rank=task["local_rank"],
                init_method=task["init_method"],
                folder=Path(task["folder"]),
                send=lambda message: send({"kind": "message", "message": message}),
                secret=task["secret"],
            )
            send({"kind": "entered", "at": time.monotonic()})
            answer = {"kind": "result", "result": function(context, task["payload"])}
            encoded(answer)
            leave_process_group()
        except BaseException as error:
            return failure_of(error)
        return answer


def failure_of(error: BaseException) -> dict[str, Any]:
    """Prints an error with its traceback, and returns it as a report for `RankTracker`."""
    at = time.monotonic()
    # Leave out the first frame, which is in this file.
    own = error.__traceback__.tb_next if error.__traceback__ else None
    reason = "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    print(reason, file=sys.stderr)
    echo = isinstance(error, RuntimeError | OSError) and _ECHO.search(str(error)) is not None
    return {"kind": "failure", "at": at, "reason": reason, "echo": echo}


def _enter_surroundings(task: Mapping[str, Any]) -> None:
    """Sets the working folder, environment and import path that the tuner had at the task's submission."""
    os.chdir(task["working_folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    sys.path[:] = task["import_path"]
    importlib.invalidate_caches()
    import torch

    torch.set_num_threads(task["threads"])


def imported(path: str) -> Callable[[RankContext, Mapping[str, Any]], Any]:
    """Imports the function with the import path `module:function`."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[[RankContext, Mapping[str, Any]], Any] = found
    return function


def leave_process_group() -> None:
    """Destroys the torch process group that the function created, since the next task creates another one."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Context manager that appends all output, including the output of C code, to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    _redirect(descriptor)
    try:
        yield
    finally:
        _flush()
        _redirect(os.open(os.devnull, os.O_WRONLY))


def _redirect(descriptor: int) -> None:
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for name, number in (("stdout", 1), ("stderr", 2)):
        # A task may have closed or replaced the streams.
        stream = open(number, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _forget_memory() -> None:
    """Returns freed memory to the system, and resets the peak memory, so each task has its own peak."""
    gc.collect()
    _forget_device_memory()
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _forget_device_memory() -> None:
    """Frees the memory that torch caches on an accelerator, since the next task may use another one."""
    torch = sys.modules.get("torch")
    kind = None if torch is None else torch.accelerator.current_accelerator()
    if torch is None or kind is None:
        return
    device = torch.get_device_module(kind)
    is_used = getattr(device, "is_initialized", None)
    if is_used is not None and is_used():
        device.empty_cache()


def encoded(message: Mapping[str, Any]) -> bytes:
    """Converts a message to a line of JSON.

    A message may have None, booleans, numbers, strings, lists and dictionaries with strings as keys. Tuples
    are converted to lists; NaN and infinities are kept.

    Raises:
        TypeError: The message has data of another type.
    """
    return json.dumps(message).encode() + b"\n"
