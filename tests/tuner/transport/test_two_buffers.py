"""What a reader finds at each moment of a write."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from tests.tuner.transport.many_ranks import filled
from tuner.transport.shared_file import SharedFile
from tuner.transport.transport import VectorForm
from tuner.transport.two_buffers import HEAD_WORDS, NUM_ATTEMPTS, WORD_BYTES, Layout, TwoBuffers

FORM = VectorForm(num_elements=1000, dtype=torch.float32)
LAYOUT = Layout(num_ranks=1, form=FORM)


@pytest.fixture
def file() -> Iterator[SharedFile]:
    made = SharedFile.create(LAYOUT.num_bytes)
    made.reserve(0, LAYOUT.prelude_bytes)
    yield made
    made.close()


def cell(file: SharedFile, fence: Callable[[], object] = lambda: None) -> TwoBuffers:
    return TwoBuffers(file, LAYOUT, LAYOUT.published(0, 1), fence)


def test_the_first_vector_is_not_seen_before_it_is_whole(file: SharedFile) -> None:
    writer, reader, out = cell(file), cell(file), filled(7)
    assert reader.is_empty()
    writer.begin(1).fill_(1)
    assert reader.read(out) is None
    assert out.eq(7).all()
    writer.finish(1, 11)
    assert reader.read(out) == (1, 11)
    assert out.eq(1).all()


def test_the_vector_before_stays_whole_during_a_write(file: SharedFile) -> None:
    writer, reader, out = cell(file), cell(file), filled(0)
    for number in range(1, 6):
        writer.write(number, filled(number), 10 * number)
        writer.begin(number + 1)[:500].fill_(-1)
        assert reader.read(out) == (number, 10 * number)
        assert out.eq(number).all()


def test_a_copy_that_the_writer_came_upon_is_made_again(file: SharedFile) -> None:
    writer, out = cell(file), filled(0)
    writer.write(1, filled(1), 1)
    numbers = iter([2, 3])

    def overtake() -> None:
        """Twice, between the reader's look and its copy, or between its copy and its look."""
        for number in numbers:
            writer.write(number, filled(number), number)

    assert cell(file, overtake).read(out) == (3, 3)
    assert out.eq(3).all()


def test_a_reader_gives_up_on_a_writer_that_is_always_faster(file: SharedFile) -> None:
    writer, out = cell(file), filled(0)
    writer.write(1, filled(1), 1)
    num_written = 1

    def overtake() -> None:
        nonlocal num_written
        for _ in range(2):
            num_written += 1
            writer.write(num_written, filled(num_written), num_written)

    assert cell(file, overtake).read(out) is None
    assert num_written >= 2 * NUM_ATTEMPTS
    assert cell(file).read(out) == (num_written, num_written)


def test_two_probes_that_do_not_agree_are_taken_again(file: SharedFile) -> None:
    writer, reader = cell(file), cell(file)
    writer.write(1, filled(1), 1)
    writer.write(2, filled(2), 2)
    head = LAYOUT.head_offset_bytes(LAYOUT.published(0, 1))
    words = memoryview(file.memory)[head : head + HEAD_WORDS * WORD_BYTES].cast("q")
    # As seen by one who looks at buffer 0 while 4 is written, and at buffer 1 after 5 was begun.
    words[0], words[1] = -4, -5
    assert reader.read(filled(0)) is None
    words[0] = 4
    assert reader.read(filled(0)) == (4, 2)


def test_a_vector_not_wanted_is_not_copied(file: SharedFile) -> None:
    writer, reader, out = cell(file), cell(file), filled(7)
    writer.write(1, filled(1), 30)
    assert reader.read(out, after=1) is None
    assert reader.read(out, newer_than=30) is None
    assert out.eq(7).all()
    assert reader.read(out, newer_than=29) == (1, 30)


def test_no_two_cells_overlap() -> None:
    layout = Layout(num_ranks=3, form=VectorForm(num_elements=2000, dtype=torch.float64))
    pairs = [(first, second) for first in range(3) for second in range(3)]
    cells = [
        *(layout.published(rank, channel) for rank in range(3) for channel in range(3)),
        *(kind(*pair) for kind in (layout.pushed, layout.question, layout.answer) for pair in pairs),
    ]
    assert sorted(cells) == list(range(layout.num_cells))
    assert layout.head_offset_bytes(layout.num_cells) <= layout.body_offset_bytes(0)
    assert layout.body_bytes >= 2 * layout.form.num_bytes
    assert layout.body_offset_bytes(layout.num_cells) == layout.num_bytes


@pytest.mark.parametrize(
    ("num_elements", "dtype", "words"), [(0, torch.float32, "at least 1"), (5, torch.int64, "floating type")]
)
def test_a_form_that_no_vector_has_is_refused(num_elements: int, dtype: torch.dtype, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        VectorForm(num_elements=num_elements, dtype=dtype)
