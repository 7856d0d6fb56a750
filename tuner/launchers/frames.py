"""Messages between the tuner and a rank: JSON, each behind its length."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator, Mapping
from typing import Any

_LENGTH = struct.Struct("!Q")


def encoded(message: Mapping[str, Any]) -> bytes:
    """A message as bytes.

    Only plain data pass: None, booleans, numbers, strings, lists and mappings with string keys. Tuples
    arrive as lists; NaN and infinities arrive as they are.

    Raises:
        TypeError: The message holds anything else.
    """
    body = json.dumps(message).encode()
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into messages; what is cut off by a sender's death is never given out."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[dict[str, Any]]:
        """Adds bytes and gives every message that is now complete."""
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._buffer)[0]
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[_LENGTH.size : end])
            del self._buffer[:end]
            message: dict[str, Any] = json.loads(body)
            yield message


def receive(connection: socket.socket) -> dict[str, Any] | None:
    """Waits for the next message; None once the other side is gone."""
    header = _receive_exactly(connection, _LENGTH.size)
    if header is None:
        return None
    body = _receive_exactly(connection, _LENGTH.unpack(header)[0])
    if body is None:
        return None
    message: dict[str, Any] = json.loads(body)
    return message


def _receive_exactly(connection: socket.socket, size: int) -> bytes | None:
    received = bytearray()
    while len(received) < size:
        try:
            part = connection.recv(min(size - len(received), 1 << 16))
        except ConnectionError:
            return None
        if not part:
            return None
        received += part
    return bytes(received)
