"""Messages between ranks, their send buffers, and the outbox that hands them to the I/O thread."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import torch
import zmq
from torch import Tensor

from tuner.transport.transport import VectorForm

_HEAD = struct.Struct("<BBqq")


class Kind(IntEnum):
    """What a message is about."""

    FETCH = 0
    PUBLISHED = 1
    PUSHED = 2
    ARRIVED = 3
    QUESTION = 4
    ANSWER = 5


_KINDS = frozenset(Kind)
_KINDS_WITHOUT_VECTOR = frozenset({Kind.FETCH, Kind.ARRIVED})


@dataclass(frozen=True, kw_only=True)
class Message:
    """One message between two ranks.

    Args:
        kind: What it is about.
        rank: The rank that it is for, or comes from.
        channel: Of `FETCH` and `PUBLISHED`.
        number: Of what is published, pushed or asked, counted by who does so; with `FETCH`, the newest one
            had.
        tag: The number that the vector was given by its sender.
        send_buffer: The vector, on its way out.
        vector: The vector, after it came in; it lies in the message itself.
    """

    kind: Kind
    rank: int
    channel: int = 0
    number: int = 0
    tag: int = 0
    send_buffer: SendBuffer | None = None
    vector: Tensor | None = None

    @property
    def head(self) -> bytes:
        """All but the vector, as it is sent."""
        return _HEAD.pack(self.kind, self.channel, self.number, self.tag)

    @property
    def place(self) -> tuple[Kind, int, int]:
        """Messages of one place replace each other until they are sent."""
        return (self.kind, self.rank, self.channel)


def parsed(parts: list[zmq.Frame], rank: int, form: VectorForm) -> Message | None:
    """The message in the parts received, or None if they are not one."""
    if len(parts) not in (1, 2) or len(parts[0].buffer) != _HEAD.size:
        return None
    kind, channel, number, tag = _HEAD.unpack(parts[0].buffer)
    vector = None
    if len(parts) == 2:
        if len(parts[1].buffer) != form.num_bytes:
            return None
        vector = form.view(parts[1].buffer)
        if vector.data_ptr() % form.dtype.itemsize:
            vector = torch.frombuffer(bytearray(parts[1].buffer), dtype=form.dtype)
    if kind not in _KINDS or (vector is None) != (kind in _KINDS_WITHOUT_VECTOR):
        return None
    return Message(kind=Kind(kind), rank=rank, channel=channel, number=number, tag=tag, vector=vector)


class Outbox:
    """Hands messages to the thread that sends them, and wakes it.

    It never holds more than one message for each place: a newer one replaces it, so a thread that gets no
    time costs no memory.

    Args:
        pool: Where replaced send buffers are returned.
    """

    def __init__(self, pool: SendBufferPool) -> None:
        self._pool: Final = pool
        self._lock: Final = threading.Lock()
        self._messages: dict[tuple[Kind, int, int], Message] = {}
        self._waking_end, self.waking = socket.socketpair()
        self._waking_end.setblocking(False)
        self.waking.setblocking(False)
        self.is_closed = False

    def put(self, message: Message) -> None:
        """Takes a message, and the hold on its send buffer."""
        with self._lock:
            replaced = self._messages.pop(message.place, None)
            self._messages[message.place] = message
            is_first = len(self._messages) == 1
        if replaced is not None and replaced.send_buffer is not None:
            self._pool.release(replaced.send_buffer)
        if is_first:
            self.wake()

    def wake(self) -> None:
        """Wakes the sending thread."""
        # Refused only if so many wake-ups are unread that one more would add nothing.
        with suppress(BlockingIOError):
            self._waking_end.send(b"!")

    def drain(self) -> tuple[list[Message], bool]:
        """All messages, and whether they are the last; called by the sending thread."""
        with suppress(BlockingIOError):
            self.waking.recv(4096)
        # Read after the wake-ups, or the one from `close` could be read before its flag is seen; and before
        # the messages, so that what was put before closing is still sent.
        is_last = self.is_closed
        with self._lock:
            messages, self._messages = self._messages, {}
        return list(messages.values()), is_last

    def close(self) -> None:
        """Ends the sending thread."""
        self.is_closed = True
        self.wake()

    def dispose(self) -> None:
        """Closes the wake-up sockets; called when the sending thread has ended."""
        self._waking_end.close()
        self.waking.close()


@dataclass(eq=False, kw_only=True)
class SendBuffer:
    """A vector that is sent without being copied again.

    Args:
        vector: The content; written by the thread that took the buffer, before any other has it.
        content: The same memory, as ZeroMQ takes it.
        num_holders: How many still need it here.
        sendings: Those that ZeroMQ has not released.
    """

    vector: Tensor
    content: memoryview
    num_holders: int = 0
    sendings: list[zmq.MessageTracker] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        """Whether it may be overwritten."""
        return self.num_holders == 0 and all(sending.done for sending in self.sendings)


class SendBufferPool:
    """Makes send buffers, and reuses those that nobody needs any longer.

    Fresh memory of a vector's size costs as much as copying it, since the system clears it page by page.
    A send buffer is handed from thread to thread with its hold; only the count is shared, under a lock.

    Args:
        form: Of the vectors.
    """

    def __init__(self, form: VectorForm) -> None:
        self._form: Final = form
        self._lock: Final = threading.Lock()
        self._send_buffers: Final[list[SendBuffer]] = []

    def take(self, source: Tensor | None = None, *, num_holders: int = 1) -> SendBuffer:
        """Gives a send buffer that nobody else has, with a copy of `source` in it."""
        with self._lock:
            send_buffer = next(
                (send_buffer for send_buffer in self._send_buffers if send_buffer.is_free), None
            )
            if send_buffer is None:
                vector = self._form.new()
                send_buffer = SendBuffer(vector=vector, content=vector.view(torch.uint8).numpy().data)
                self._send_buffers.append(send_buffer)
            send_buffer.sendings.clear()
            send_buffer.num_holders = num_holders
        if source is not None:
            self._form.copy(source, send_buffer.vector)
        return send_buffer

    def release(self, send_buffer: SendBuffer) -> None:
        """Says that one of its holders is done with it."""
        with self._lock:
            send_buffer.num_holders -= 1

    def has_gone(self, send_buffer: SendBuffer, sending: zmq.MessageTracker) -> None:
        """Notes that ZeroMQ is sending it."""
        with self._lock:
            send_buffer.sendings = [*(other for other in send_buffer.sendings if not other.done), sending]
