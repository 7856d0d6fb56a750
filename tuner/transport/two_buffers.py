"""A double buffer in shared memory: one process writes, others read at any time, without locks."""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from torch import Tensor

from tuner.transport.shared_file import SharedFile
from tuner.transport.transport import NUM_CHANNELS, STATUS_WIDTH, VectorForm

#: How often a reader starts over because the writer interrupted it. Each time the writer must have finished
#: two whole vectors during one copy, so a second time is rare unless the writer does nothing else.
NUM_ATTEMPTS = 64

_TAGS = 2


class TwoBuffers:
    """One cell of the shared memory: two vectors, of which the newest whole one counts.

    The n-th vector (n = 1, 2, ...) goes into buffer n mod 2, under a sequence lock (Lameter 2005, "Effective
    synchronization on Linux/NUMA systems"; Boehm 2012, "Can seqlocks get along with programming language
    memory models?"): the writer sets the buffer's number to -n, writes, and sets it to n. A reader takes the
    buffer with the larger positive number, copies it, and checks the number again: if it is still n, no
    store of a later vector came in between. A writer that is stopped or killed in the middle of vector n
    leaves n - 1 whole, in the other buffer.

    Head, in words of 8 bytes: number of buffer 0, of buffer 1, tag of buffer 0, of buffer 1. Words are stored
    and loaded as one (aligned), by `memoryview`.

    Args:
        file: The memory.
        layout: What lies where in it.
        cell: The cell.
        fence: Called between stores, or loads, whose order matters.
    """

    def __init__(self, file: SharedFile, layout: Layout, cell: int, fence: Callable[[], object]) -> None:
        self._file: Final = file
        self._form: Final = layout.form
        self._fence: Final = fence
        self._is_reserved = False
        head = layout.head_offset_bytes(cell)
        self._words: Final = memoryview(file.memory)[head : head + HEAD_WORDS * WORD_BYTES].cast("q")
        self._body: Final = (layout.body_offset_bytes(cell), layout.body_bytes)
        self._buffers: Final = tuple(
            layout.form.view(file.memory, self._body[0] + which * layout.buffer_row_bytes)
            for which in range(2)
        )

    def begin(self, number: int) -> Tensor:
        """Gives the buffer that the n-th vector is to be written into.

        Raises:
            StorageError: There is no memory for it.
        """
        if not self._is_reserved:
            self._file.reserve(*self._body)
            self._is_reserved = True
        self._words[number % 2] = -number
        self._fence()
        return self._buffers[number % 2]

    def finish(self, number: int, tag: int) -> None:
        """Says that the n-th vector is whole."""
        self._words[_TAGS + number % 2] = tag
        self._fence()
        self._words[number % 2] = number

    def write(self, number: int, vector: Tensor, tag: int) -> None:
        """Writes the n-th vector."""
        self._form.copy(vector, self.begin(number))
        self.finish(number, tag)

    def holds(self, number: int) -> bool:
        """Whether the n-th vector is there, and whole."""
        is_there = self._words[number % 2] == number
        self._fence()
        return is_there

    def held(self, number: int) -> tuple[Tensor, int]:
        """The n-th vector itself and its tag, where reader and writer have agreed on whose turn it is."""
        return self._buffers[number % 2], self._words[_TAGS + number % 2]

    def is_empty(self) -> bool:
        """Whether no vector was ever written here, not even in part."""
        return self._words[0] == 0 and self._words[1] == 0

    def read(self, out: Tensor, *, after: int = 0, newer_than: int | None = None) -> tuple[int, int] | None:
        """Copies the newest whole vector.

        Args:
            out: The tensor to copy into; invalid if None is returned although there was a newer vector.
            after: A number; only a later vector is copied.
            newer_than: A tag; only a vector with a larger one is copied.

        Returns:
            Its number and its tag.
        """
        for _ in range(NUM_ATTEMPTS):
            number = self._newest()
            if number is None:
                continue
            if number <= after:
                return None
            self._fence()
            vector, tag = self.held(number)
            is_wanted = newer_than is None or tag > newer_than
            if is_wanted:
                self._form.copy(vector, out)
            self._fence()
            if self._words[number % 2] == number:
                return (number, tag) if is_wanted else None
        return None

    def _newest(self) -> int | None:
        """The number of the newest whole vector; 0: there is none yet; None: the two reads did not agree."""
        first, second = self._words[0], self._words[1]
        newest = max(first, second)
        if newest > 0:
            return newest
        return 0 if min(first, second) >= -1 else None


#: A status's numbers, then the time it was posted at; the rest is padding, to whole cache lines.
STATUS_ROW_WORDS = 32
POSTED_AT_WORD = STATUS_WIDTH

#: A cell's head has a cache line to itself.
HEAD_WORDS = 8
WORD_BYTES = 8
LINE_BYTES = 64


def _rounded_up(num_bytes: int, unit_bytes: int) -> int:
    return -(-num_bytes // unit_bytes) * unit_bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Offsets of a job's shared memory: statuses, heads of all cells, bodies of all cells.

    A cell holds two vectors. Each has one rank that writes it, and is known by its index: one for
    what a rank publishes in a channel, and three for each pair of ranks: pushes from one to the other,
    questions, and answers. Bodies lie on separate pages, so that those never used cost no memory.
    """

    num_ranks: int
    form: VectorForm

    def published(self, rank: int, channel: int) -> int:
        """The cell of a rank's channel."""
        assert 0 <= rank < self.num_ranks, f"no rank {rank}"
        assert 0 <= channel < NUM_CHANNELS, f"no channel {channel}"
        return rank * NUM_CHANNELS + channel

    def pushed(self, sender: int, receiver: int) -> int:
        """The cell of what a rank pushes to another."""
        return self._pair(0, sender, receiver)

    def question(self, asker: int, asked: int) -> int:
        """The cell of what a rank asks another; the asker writes it."""
        return self._pair(1, asker, asked)

    def answer(self, asker: int, asked: int) -> int:
        """The cell of what a rank is answered by another; the asked one writes it."""
        return self._pair(2, asker, asked)

    def _pair(self, kind: int, first: int, second: int) -> int:
        assert 0 <= first < self.num_ranks, f"no rank {first}"
        assert 0 <= second < self.num_ranks, f"no rank {second}"
        return self.num_ranks * (NUM_CHANNELS + kind * self.num_ranks + first) + second

    @property
    def num_cells(self) -> int:
        """All cells."""
        return self.num_ranks * (NUM_CHANNELS + 3 * self.num_ranks)

    def head_offset_bytes(self, cell: int) -> int:
        """Where a cell's head begins."""
        heads = self.num_ranks * STATUS_ROW_WORDS * WORD_BYTES
        return heads + cell * HEAD_WORDS * WORD_BYTES

    @property
    def prelude_bytes(self) -> int:
        """Statuses and heads, which are always in use."""
        return _rounded_up(self.head_offset_bytes(self.num_cells), mmap.PAGESIZE)

    @property
    def buffer_row_bytes(self) -> int:
        """From one vector of a cell to the other."""
        return _rounded_up(self.form.num_bytes, LINE_BYTES)

    @property
    def body_bytes(self) -> int:
        """A cell's two vectors."""
        return _rounded_up(2 * self.buffer_row_bytes, mmap.PAGESIZE)

    def body_offset_bytes(self, cell: int) -> int:
        """Where a cell's vectors begin."""
        return self.prelude_bytes + cell * self.body_bytes

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.body_offset_bytes(self.num_cells)
