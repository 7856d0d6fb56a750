from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import open_storage
from tests.tuner.service.desk import Desk


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with open_storage(f"sqlite:///{tmp_path / 'paceline.db'}") as store:
        yield Desk(tmp_path, store)
