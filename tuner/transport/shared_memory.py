"""Passes vectors between the ranks of one host through shared memory.

Nothing here takes a lock that a dying rank could leave locked, and no rank waits for another. Why this is
safe:

- *Each cell of the memory has one writer*, and what others may read while it is written lies under a sequence
  lock (`two_buffers.py`): the reader checks the vector's number before and after its copy. That needs
  stores to become visible in the order in which they were made, and loads to be made in order. x86-64
  (total store order) and s390x do so by themselves; elsewhere `atomic_thread_fence` of GCC's libatomic is
  called between them. If there is neither, `shared_memory_is_safe` is False and this
  is not to be used. Calls into torch and the kernel are opaque to compilers, so that these do not move the
  stores either.
- *Copies are ordinary stores*, or streaming ones that glibc's memcpy ends by a store fence before it returns;
  those of torch's other threads are ordered by the barrier that ends a parallel copy.
- *Questions and answers change hands.* A question's cell is the asker's until it wakes the asked rank, and
  that rank's until it wakes the asker; an answer's cell, the other way round. Wake-up sockets
  (`WakeUpSocket`) order memory through the kernel on any machine. An answer has two buffers, so
  that the one before it can still be read while the next is written. The wake-up of a reply may be refused
  when many unread ones wait; the asker reads the memory after each wake-up it receives, so it finds the
  answer all the same.
- *The numbers of a status* are aligned words of 8 bytes, which these machines store and load as one.

Each vector is copied once by its sender and once by its receiver; a request and a reply are views of the
memory and an answer is written straight into it.
"""

from __future__ import annotations

import ctypes
import json
import platform
import secrets
import select
import shutil
import socket
import struct
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from tuner.domain.errors import StorageError, TunerError
from tuner.transport.addresses import PrefixStore, Store, exchange
from tuner.transport.shared_file import SharedFile
from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, Array, Received, Transport, VectorForm
from tuner.transport.two_buffers import POSTED_AT_WORD, STATUS_ROW_WORDS, Layout, TwoBuffers


class SharedMemoryTransport(Transport):
    """For ranks of one host that run as one user and see each other's processes.

    Making one waits until all ranks have made theirs. Before `close`, whoever serves in another thread ends
    that: a closed transport must not be used.

    Beyond the contract: `ask` also gives False if the other rank's process is gone or its queue full, and
    `is_asked` then gives False. `fetch` and `take_pushed` find nothing in the rare case that the writer
    interrupts them again and again (see `NUM_ATTEMPTS`).

    Args:
        store: Where the ranks meet; used only here, and fresh for each job.
        rank: This rank.
        num_ranks: All ranks.
        num_elements: Length of all vectors.
        dtype: Their floating type.

    Raises:
        StorageError: There is no memory to share, or it cannot be opened by all.
        TunerError: This machine does not let memory be shared safely.
        torch.distributed.DistStoreError: A rank did not come within the store's time limit.
    """

    def __init__(
        self, store: Store, *, rank: int, num_ranks: int, num_elements: int, dtype: torch.dtype
    ) -> None:
        fence = memory_fence()
        if fence is None:
            raise TunerError(
                "Stores of this machine become visible in any order, and libatomic.so.1, whose fence would "
                "help, is not found: install it (package libatomic1 or libatomic), or use messages"
            )
        self.rank = rank
        self.num_ranks = num_ranks
        self.moved_bytes = 0
        self._form = VectorForm(num_elements=num_elements, dtype=dtype)
        self._layout = Layout(num_ranks=num_ranks, form=self._form)
        self._fence = fence
        self._counting = threading.Lock()
        self._is_closed = False
        self._cells: dict[int, TwoBuffers] = {}
        # The main thread's.
        self._num_published = [0] * NUM_CHANNELS
        self._num_pushed = [0] * num_ranks
        self._num_asked = [0] * num_ranks
        self._asked: dict[int, int] = {}
        self._mailbox: dict[int, Tensor] = {}
        self._mailbox_numbers = [0] * num_ranks
        # The serving thread's.
        self._taken: dict[int, int] = {}
        self._last_taken = [0] * num_ranks
        self._open(PrefixStore("paceline/shared_memory", store))
        self._opened_at = time.monotonic()

    def _open(self, store: Store) -> None:
        """Rank 0 makes the memory, each rank its wake-up sockets; then all open and connect them."""
        with ExitStack() as undo:
            self._requests, self._replies = WakeUpSocket(self.rank), WakeUpSocket(self.rank)
            undo.callback(self._replies.close)
            undo.callback(self._requests.close)
            place, trouble = "", ""
            if self.rank == 0:
                try:
                    self._file = SharedFile.create(self._layout.num_bytes)
                    undo.callback(self._file.close)
                    self._file.reserve(0, self._layout.prelude_bytes)
                    place = self._file.place
                except StorageError as error:
                    trouble = str(error)
            cards = self._meet(store, "made", [place, trouble, self._requests.address, self._replies.address])
            if cards[0][1]:
                raise StorageError(cards[0][1])
            trouble = ""
            try:
                if self.rank != 0:
                    self._file = SharedFile.open(cards[0][0])
                    undo.callback(self._file.close)
                self._requests.connect([card[2] for card in cards])
                self._replies.connect([card[3] for card in cards])
            except (StorageError, OSError) as error:
                trouble = f"Rank {self.rank}: {error}"
            troubles = [card[0] for card in self._meet(store, "opened", [trouble]) if card[0]]
            if troubles:
                raise StorageError("\n".join(troubles))
            for named in (self._file, self._requests, self._replies):
                named.forget_name()
            words = np.frombuffer(
                self._file.memory, dtype=np.float64, count=self.num_ranks * STATUS_ROW_WORDS
            )
            self._board: Array | None = words.reshape(self.num_ranks, STATUS_ROW_WORDS)
            undo.pop_all()

    def _meet(self, store: Store, name: str, card: list[str]) -> list[list[str]]:
        values = exchange(store, name, rank=self.rank, num_ranks=self.num_ranks, value=json.dumps(card))
        return [json.loads(value) for value in values]

    def _cell(self, index: int) -> TwoBuffers:
        cell = self._cells.get(index)
        if cell is None:
            cell = self._cells[index] = TwoBuffers(self._file, self._layout, index, self._fence)
        return cell

    def _count_to(self, rank: int) -> None:
        if rank != self.rank:
            with self._counting:
                self.moved_bytes += self._form.num_bytes

    def post(self, status: Array) -> None:
        assert self._board is not None, "the transport is closed"
        self._board[self.rank, :STATUS_WIDTH] = status
        self._board[self.rank, POSTED_AT_WORD] = time.monotonic()

    def statuses(self) -> Array:
        assert self._board is not None, "the transport is closed"
        # Row by row of few words, so that numpy copies whole words.
        return self._board[:, :STATUS_WIDTH].copy()

    def silent_seconds(self) -> Array:
        assert self._board is not None, "the transport is closed"
        # The monotonic clock is one for all processes of a host.
        posted_at = self._board[:, POSTED_AT_WORD].copy()
        posted_at[posted_at == 0] = self._opened_at
        silent: Array = np.maximum(time.monotonic() - posted_at, 0)
        silent[self.rank] = 0
        return silent

    def publish(self, channel: int, vector: Tensor, tag: int) -> None:
        self._num_published[channel] += 1
        self._cell(self._layout.published(self.rank, channel)).write(
            self._num_published[channel], vector, tag
        )

    def prefetch(self, rank: int, channel: int) -> None:
        """Nothing is on its way: `fetch` reads the memory itself."""

    def fetch(self, rank: int, channel: int, out: Tensor, *, newer_than: int | None = None) -> int | None:
        found = self._cell(self._layout.published(rank, channel)).read(out, newer_than=newer_than)
        if found is None:
            return None
        self._count_to(rank)
        return found[1]

    def push(self, rank: int, vector: Tensor, tag: int) -> bool:
        self._num_pushed[rank] += 1
        self._cell(self._layout.pushed(self.rank, rank)).write(self._num_pushed[rank], vector, tag)
        self._count_to(rank)
        return True

    def take_pushed(self) -> list[Received]:
        taken = []
        for sender in range(self.num_ranks):
            cell = self._cell(self._layout.pushed(sender, self.rank))
            if sender not in self._mailbox:
                if cell.is_empty():
                    continue
                self._mailbox[sender] = self._form.new()
            found = cell.read(self._mailbox[sender], after=self._mailbox_numbers[sender])
            if found is not None:
                self._mailbox_numbers[sender], tag = found
                taken.append(Received(sender=sender, tag=tag, vector=self._mailbox[sender]))
        return taken

    def ask(self, rank: int, vector: Tensor, tag: int) -> bool:
        if rank in self._asked:
            return False
        self._num_asked[rank] += 1
        number = self._num_asked[rank]
        self._cell(self._layout.question(self.rank, rank)).write(number, vector, tag)
        if not self._requests.ring(rank, number):
            return False
        self._asked[rank] = number
        self._count_to(rank)
        return True

    def reply(self, rank: int, *, wait_seconds: float = 0.0) -> Received | None:
        number = self._asked.get(rank)
        if number is None:
            return None
        cell = self._cell(self._layout.answer(self.rank, rank))
        deadline = time.monotonic() + wait_seconds
        while not cell.holds(number):
            # Whoever woke this rank: read after each wake-up, and once more when time is up.
            rung = self._replies.wait(deadline - time.monotonic())
            if rung is None and not cell.holds(number):
                return None
        del self._asked[rank]
        vector, tag = cell.held(number)
        return Received(sender=rank, tag=tag, vector=vector)

    def is_asked(self, rank: int) -> bool:
        return rank in self._asked

    def next_request(self, *, wait_seconds: float = 0.0) -> Received | None:
        deadline = time.monotonic() + wait_seconds
        while (rung := self._requests.wait(deadline - time.monotonic())) is not None:
            asker, number = rung
            cell = self._cell(self._layout.question(asker, self.rank))
            # Any process on the host may send a wake-up; only a question in the memory counts, and only once.
            if number > self._last_taken[asker] and cell.holds(number):
                self._last_taken[asker] = self._taken[asker] = number
                vector, tag = cell.held(number)
                return Received(sender=asker, tag=tag, vector=vector)
        return None

    def answer(self, request: Received, fill: Callable[[Tensor], None], tag: int) -> None:
        number = self._taken[request.sender]
        cell = self._cell(self._layout.answer(request.sender, self.rank))
        fill(cell.begin(number))
        cell.finish(number, tag)
        del self._taken[request.sender]
        # Before the kernel checks whether the queue is full: the asker checks in the opposite order.
        self._fence()
        self._replies.ring(request.sender, number)
        self._count_to(request.sender)

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._requests.close()
        self._replies.close()
        self._cells.clear()
        self._board = None
        self._file.close()


#: The rank that sends the wake-up, and the number of the vector that it is for.
RING = struct.Struct("=iq")


class WakeUpSocket:
    """A rank's wake-up socket, and its connections to those of the other ranks.

    A Unix datagram socket: waiting for a wake-up blocks in the kernel, wake-ups arrive in the order in
    which they were sent, and what was stored before `ring` is seen after `wait`, on any machine, since the
    kernel's queue is locked. Sending never blocks. The kernel queues few of them (net.unix.max_dgram_qlen, 10
    or more) and refuses more.

    On Linux the socket's name is an abstract one, which disappears with the socket; elsewhere it is a path,
    which `forget_name` removes once the others are connected. Any process on the host may send a wake-up: the
    receiver checks what it was for.

    Args:
        rank: The rank that the socket wakes.
    """

    def __init__(self, rank: int) -> None:
        self._rank: Final = rank
        self._folder: Path | None = None
        self._wake_ups: list[socket.socket] = []
        self._wake_up_socket: Final = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._wake_up_socket.setblocking(False)
        if sys.platform == "linux":
            self.address = f"\0paceline-{secrets.token_hex(16)}"
        else:
            self._folder = Path(tempfile.mkdtemp(prefix="paceline-"))
            self.address = str(self._folder / "bell")
        self._wake_up_socket.bind(self.address)
        self._poll: Final = select.poll()
        self._poll.register(self._wake_up_socket, select.POLLIN)

    def connect(self, addresses: Sequence[str]) -> None:
        """Connects to the wake-up sockets of all ranks, this one included."""
        for address in addresses:
            wake_up = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._wake_ups.append(wake_up)
            wake_up.setblocking(False)
            wake_up.connect(address)

    def ring(self, rank: int, number: int) -> bool:
        """Wakes a rank; False if that failed: its queue is full, or its process is gone."""
        try:
            self._wake_ups[rank].send(RING.pack(self._rank, number))
        except OSError:
            return False
        return True

    def wait(self, seconds: float) -> tuple[int, int] | None:
        """The oldest unread wake-up (sender, number), waiting for one no longer than this."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                data = self._wake_up_socket.recv(RING.size + 1)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0 or not self._poll.poll(left * 1000):
                    return None
                continue
            if len(data) == RING.size:
                who, number = RING.unpack(data)
                if 0 <= who < len(self._wake_ups):
                    return who, number

    def forget_name(self) -> None:
        """Removes the socket's name from the file system, if it has one."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def close(self) -> None:
        """Closes the socket; later wake-ups fail at their sender."""
        self.forget_name()
        self._wake_up_socket.close()
        while self._wake_ups:
            self._wake_ups.pop().close()


#: Machines whose stores become visible in order, and whose loads are made in order: x86-64 ("total store
#: order": Sewell et al. 2010, "x86-TSO"; Intel SDM volume 3A, 9.2) and s390x (z/Architecture Principles of
#: Operation, "Storage-Operand Consistency").
ORDERED_MACHINES = frozenset({"x86_64", "amd64", "s390x"})

#: `memory_order_seq_cst` of C11.
SEQUENTIALLY_CONSISTENT = 5


def _nothing() -> None:
    """The fence of a machine that needs none."""


@cache
def memory_fence() -> Callable[[], object] | None:
    """The fence to call between two stores, or two loads, whose order matters.

    Returns:
        None if there is none, so that memory must not be shared without locks.
    """
    if platform.machine().lower() in ORDERED_MACHINES:
        return _nothing
    try:
        # Of GCC's run-time library, package libatomic1 (Debian) or libatomic (Fedora).
        fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except (OSError, AttributeError):
        return None
    fence.argtypes = [ctypes.c_int]
    fence.restype = None
    return lambda: fence(SEQUENTIALLY_CONSISTENT)


def shared_memory_is_safe() -> bool:
    """Whether ranks of this host may pass vectors through memory that they share."""
    return memory_fence() is not None
