from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage import Storage, open_storage
from tests.tuner.service.desk import Desk


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Storage]:
    with open_storage(f"sqlite:///{tmp_path / 'paceline.db'}") as store:
        yield store


@pytest.fixture
def desk(tmp_path: Path, store: Storage) -> Desk:
    return Desk(tmp_path, store)
