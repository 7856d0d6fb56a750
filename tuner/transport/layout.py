"""Where what lies in the memory that the ranks of a host share."""

from __future__ import annotations

import mmap
from dataclasses import dataclass

from tuner.transport.transport import NUM_CHANNELS, STANDING_WIDTH
from tuner.transport.vector_form import VectorForm

#: A standing's numbers, then the time it was posted at; the rest is air, to whole cache lines.
STANDING_STRIDE_WORDS = 32
POSTED_AT_WORD = STANDING_WIDTH

#: A cell's head has a cache line to itself.
HEAD_WORDS = 8
WORD_BYTES = 8
LINE_BYTES = 64


def _rounded_up(num_bytes: int, unit_bytes: int) -> int:
    return -(-num_bytes // unit_bytes) * unit_bytes


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Offsets of a job's shared memory: standings, heads of all cells, bodies of all cells.

    A cell holds two vectors. Each has one rank that writes it, and is known by its index: one for
    what a rank publishes in a channel, and three for each pair of ranks: what one pushes to the other, asks
    it, and is answered. Bodies lie on pages of their own, so that those never used cost no memory.
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
        heads = self.num_ranks * STANDING_STRIDE_WORDS * WORD_BYTES
        return heads + cell * HEAD_WORDS * WORD_BYTES

    @property
    def prelude_bytes(self) -> int:
        """Standings and heads, which are always in use."""
        return _rounded_up(self.head_offset_bytes(self.num_cells), mmap.PAGESIZE)

    @property
    def buffer_stride_bytes(self) -> int:
        """From one vector of a cell to the other."""
        return _rounded_up(self.form.num_bytes, LINE_BYTES)

    @property
    def body_bytes(self) -> int:
        """A cell's two vectors."""
        return _rounded_up(2 * self.buffer_stride_bytes, mmap.PAGESIZE)

    def body_offset_bytes(self, cell: int) -> int:
        """Where a cell's vectors begin."""
        return self.prelude_bytes + cell * self.body_bytes

    @property
    def num_bytes(self) -> int:
        """All of it."""
        return self.body_offset_bytes(self.num_cells)
