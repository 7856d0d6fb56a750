"""Write times of the lines of a buffered writer."""

from __future__ import annotations

import pytest

from tuner.probes.commands.buffered_lines import FirstBlock, spread_block
from tuner.probes.commands.progress_line import ScriptLine


def block(steps: range, at: float) -> list[ScriptLine]:
    return [ScriptLine(seen_at=at, step=step, text="") for step in steps]


def test_the_second_block_shows_the_start_up_in_the_first() -> None:
    # 3 s of start-up, then 100 steps a second, written 100 at once.
    first_block, stored = FirstBlock(is_fresh=True), spread_block(block(range(10, 101, 10), 4.0), 0.0)
    assert first_block.retimed(stored, stored, 0.0, 4.0) is None
    assert first_block.awaits_pace
    new = spread_block(block(range(110, 201, 10), 5.0), 4.0)
    moved = first_block.retimed([*stored, *new], new, 4.0, 5.0)
    assert moved is not None
    assert [line.seen_at for line in moved] == pytest.approx([3.0 + line.step / 100 for line in moved])
    assert not first_block.awaits_pace


def test_a_run_that_goes_on_from_elsewhere_has_no_start_up_to_tell_apart() -> None:
    first_block, stored = FirstBlock(is_fresh=True), block(range(1010, 1101, 10), 1.0)
    assert first_block.retimed(stored, stored, 0.0, 1.0) is None
    new = block(range(1110, 1201, 10), 2.0)
    assert first_block.retimed([*stored, *new], new, 1.0, 2.0) is None


@pytest.mark.parametrize("is_fresh", [True, False])
def test_lines_that_come_one_by_one_or_after_a_resume_stay(is_fresh: bool) -> None:
    first_block, stored = FirstBlock(is_fresh=is_fresh), block(range(10, 11), 3.0)
    assert first_block.retimed(stored, stored, 0.0, 3.0) is None
    assert not first_block.awaits_pace
