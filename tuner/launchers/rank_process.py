"""The main loop of a local rank: wait for a task, run its function, send the result, repeat."""

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
    """Runs tasks until one fails or the tuner has exited.

    Args:
        connection: To the tuner; tasks come in, messages and results go out.
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
    """The lines that the tuner sends, until it is gone; one that it did not finish is dropped."""
    with contextlib.suppress(ConnectionError):
        for line in connection.makefile("rb"):
            if line.endswith(b"\n"):
                yield line


def _die_with_tuner(connection: socket.socket) -> None:
    """Kills this process group when the tuner has closed the connection."""

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
            )
            send({"kind": "entered", "at": time.monotonic()})
            answer = {"kind": "result", "result": function(context, task["payload"])}
            encoded(answer)
            leave_process_group()
        except BaseException as error:
            return failure_of(error)
        return answer


def failure_of(error: BaseException) -> dict[str, Any]:
    """The report of an error, which is also printed."""
    at = time.monotonic()
    # Leave out the first frame, which is in this file.
    own = error.__traceback__.tb_next if error.__traceback__ else None
    reason = "".join(traceback.format_exception(type(error), error, own or error.__traceback__))
    print(reason, file=sys.stderr)
    echo = isinstance(error, RuntimeError | OSError) and _ECHO.search(str(error)) is not None
    return {"kind": "failure", "at": at, "reason": reason, "echo": echo}


def _enter_surroundings(task: Mapping[str, Any]) -> None:
    """Applies the working folder, environment and import path of the tuner at submission."""
    os.chdir(task["working_folder"])
    os.environ.clear()
    os.environ.update(task["environment"])
    sys.path[:] = task["import_path"]
    importlib.invalidate_caches()
    import torch

    torch.set_num_threads(task["threads"])


def imported(path: str) -> Callable[[RankContext, Mapping[str, Any]], Any]:
    """The function that an import path `module:function` names."""
    module, _, name = path.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    function: Callable[[RankContext, Mapping[str, Any]], Any] = found
    return function


def leave_process_group() -> None:
    """Destroys the torch process group if the function left one; the next task creates its own."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


@contextlib.contextmanager
def _output_to(log: Path) -> Iterator[None]:
    """Appends everything that is printed meanwhile to a file, output of C code included."""
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
    """Returns freed memory to the system and resets the peak, so that each task has its own peak."""
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
    """A message as a line of JSON.

    Only plain data pass: None, booleans, numbers, strings, lists and mappings with string keys. Tuples
    arrive as lists; NaN and infinities arrive as they are.

    Raises:
        TypeError: The message holds anything else.
    """
    return json.dumps(message).encode() + b"\n"
