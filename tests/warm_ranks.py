"""One pool of warm ranks for all tests of a worker: starting one takes seconds, since it imports torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tuner.launchers import LocalLauncher


@pytest.fixture(scope="session")
def warm_ranks() -> Iterator[LocalLauncher]:
    """A launcher whose ranks are used again by test after test; a test that kills one leaves others."""
    from tuner.launchers import LocalLauncher  # imports torch, which not every test needs

    with LocalLauncher() as launcher:
        yield launcher
