"""The program of a rank on a node: `python -m tuner.launchers.rank_program FOLDER`, one process per rank.

It reads the function and its payload from `ranks.json` in the job's folder, and its rank and the rendezvous
from environment variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT, as torchrun sets them). It
appends its reports to `messages-RANK.jsonl`: a line when it enters the function, messages, and a result or a
failure.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from tuner.domain.parent_death import die_with_parent
from tuner.launchers.launcher import RankContext
from tuner.launchers.rank_process import failure_of, imported, leave_process_group

#: Seconds for which a rank continues after SIGTERM, since it may be about to report its own error.
_LAST_WORDS_SECONDS = 2.0
_LOOPBACK = "127.0.0.1"
_GET_ADDRESS = 0x8915  # SIOCGIFADDR
#: Objects that must live as long as the process.
_held: list[Any] = []


class MessageFile:
    """Appends lines of JSON to the file with a rank's reports.

    The file is opened and closed for each line, since other hosts of a network file system do not see a line
    before that.

    Args:
        path: Path of the file.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._lock = path, threading.Lock()

    def say(self, frame: Mapping[str, Any]) -> None:
        """Appends a report of the rank to the file.

        Args:
            frame: The report, as `RankTracker` describes it.

        Raises:
            TypeError: The report has data that JSON cannot represent.
        """
        line = (json.dumps(frame) + "\n").encode()
        with self._lock, self._path.open("ab") as file:
            file.write(line)


def main(folder: Path) -> NoReturn:
    """Runs the function of the job's task as one rank, then ends this process.

    Args:
        folder: Folder of the job.
    """
    rank = int(os.environ["RANK"])
    reporter = MessageFile(folder / f"messages-{rank}.jsonl")
    _end_when_asked()
    # SIGTERM: when all processes of the job are asked to end, the shell that started this one ends first.
    die_with_parent(os.getppid(), signal.SIGTERM)
    try:
        task = json.loads((folder / "ranks.json").read_text())
        if os.environ["PACELINE_NUM_NODES"] == "1":
            os.environ["MASTER_ADDR"] = _LOOPBACK
        choose_interface(os.environ["MASTER_ADDR"])
        function = imported(task["function"])
        import torch

        torch.set_num_threads(task["threads"])
        _serve_store(rank)
        context = RankContext(
            rank=rank,
            num_ranks=int(os.environ["WORLD_SIZE"]),
            local_rank=int(os.environ["LOCAL_RANK"]),
            # torch uses the store that `_serve_store` opened, as it would use the store of torchrun.
            init_method="env://",
            folder=Path(task["folder"]),
            send=lambda message: reporter.say({"kind": "message", "message": message}),
            secret=task["secret"],
        )
        reporter.say({"kind": "entered", "at": time.time()})
        result = function(context, task["payload"])
        leave_process_group()
        reporter.say({"kind": "result", "result": result})
    except BaseException as error:
        reporter.say({**failure_of(error), "at": time.time()})
        code = 1
    else:
        code = 0
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    # Exit at once, even if the function left threads: the collectives of other ranks must fail.
    os._exit(code)


def choose_interface(main_address: str) -> None:
    """Makes gloo use the network interface that leads to the first node, unless the user chose an interface.

    By default, gloo uses the address of this host's name, which on Debian is a loopback address.
    """
    if "GLOO_SOCKET_IFNAME" in os.environ:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # No packet is sent: the kernel only chooses the address of the sender.
        probe.connect((main_address, 9))
        own = socket.inet_aton(probe.getsockname()[0])
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):
                answer = fcntl.ioctl(probe.fileno(), _GET_ADDRESS, struct.pack("256s", name.encode()[:15]))
                if answer[20:24] == own:
                    os.environ["GLOO_SOCKET_IFNAME"] = name
                    return


def _serve_store(rank: int) -> None:
    """Opens the rendezvous store in the first rank, for as long as the process lives.

    The store that `env://` opens by default is closed by the first rank while other ranks may still read it,
    and listens on all network interfaces. Environment variables tell torch that a store exists, as under
    torchrun.
    """
    os.environ["TORCHELASTIC_USE_AGENT_STORE"] = "True"
    os.environ.setdefault("TORCHELASTIC_RESTART_COUNT", "0")
    if rank != 0:
        return
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    listening = listening_at(host, port)
    store = TCPStore(
        host,
        port,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=None if listening is None else listening.detach(),
    )
    _held.append(store)


def listening_at(host: str, port: int) -> socket.socket | None:
    """Returns a socket that listens only at the address by which other ranks reach this host.

    Args:
        host: Address or name of this host.
        port: The port.

    Returns:
        None if the socket must listen on all network interfaces, since other hosts may use another address:
        no interface has the address, this host's name is a loopback address here (as on Debian), or the name
        has several addresses.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, _, _, address = found[0]
        if len({entry[4][0] for entry in found}) > 1 and host != "localhost":
            return None
        if ipaddress.ip_address(address[0]).is_loopback and host not in ("localhost", address[0]):
            return None
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind(address)
            listening.listen(socket.SOMAXCONN)
        except OSError:
            listening.close()
            return None
    except OSError:
        return None
    return listening


def _end_when_asked() -> None:
    """Ends this process shortly after SIGTERM, even while Python cannot run signal handlers."""
    asked_end, ask_end = os.pipe()
    os.set_blocking(ask_end, False)
    signal.set_wakeup_fd(ask_end, warn_on_full_buffer=False)
    signal.signal(signal.SIGTERM, lambda *_: None)

    def watch() -> None:
        while signal.SIGTERM not in os.read(asked_end, 64):
            continue
        time.sleep(_LAST_WORDS_SECONDS)
        os._exit(128 + signal.SIGTERM)

    threading.Thread(target=watch, name="end", daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
