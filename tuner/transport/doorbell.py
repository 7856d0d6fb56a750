"""How a rank wakes another one of its host."""

from __future__ import annotations

import secrets
import select
import shutil
import socket
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

#: The rank that rings, and the number of what it rings for.
RING = struct.Struct("=iq")


class Doorbell:
    """A rank's bell, and the ropes to those of the others.

    A bell is a Unix datagram socket: waiting for a ring blocks in the kernel, rings come in the order in
    which they were made, and what was stored before `ring` is seen after `wait`, on any machine, since the
    kernel's queue is locked. Rings never block. The kernel keeps few of them (net.unix.max_dgram_qlen, 10
    or more): a ring too many is refused.

    On Linux the socket's name is an abstract one, which goes with the socket; elsewhere it is a path, which
    is removed by `forget_name` once the others are connected. Anybody on the host may ring: who waits
    checks what was rung for.

    Args:
        rank: Whose bell it is.
    """

    def __init__(self, rank: int) -> None:
        self._rank: Final = rank
        self._folder: Path | None = None
        self._ropes: list[socket.socket] = []
        self._bell: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._bell.setblocking(False)
        if sys.platform == "linux":
            self.address = f"\0paceline-{secrets.token_hex(16)}"
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="paceline-"))
            self.address = str(self._folder / "bell")
        self._bell.bind(self.address)
        self._poll: Final = select.poll()
        self._poll.register(self._bell, select.POLLIN)

    def connect(self, addresses: Sequence[str]) -> None:
        """Lays the ropes to the bells of all ranks, its own included."""
        for address in addresses:
            rope = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._ropes.append(rope)
            rope.setblocking(False)
            rope.connect(address)

    def ring(self, rank: int, number: int) -> bool:
        """Rings at a rank; says whether it may be heard: its queue is not full, and its process not gone."""
        try:
            self._ropes[rank].send(RING.pack(self._rank, number))
        except OSError:
            return False
        return True

    def wait(self, seconds: float) -> tuple[int, int] | None:
        """The oldest ring not heard yet (who, for what), waiting for one no longer than this."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                data = self._bell.recv(RING.size + 1)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._poll.poll(left * 1000):
                    return None
                continue
            if len(data) == RING.size:
                who, number = RING.unpack(data)
                if 0 <= who < len(self._ropes):
                    return who, number

    def forget_name(self) -> None:
        """Removes the bell's name from the file system, where it has one."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def close(self) -> None:
        """Takes the bell down; who rings then is told so."""
        self.forget_name()
        self._bell.close()
        while self._ropes:
            self._ropes.pop().close()
