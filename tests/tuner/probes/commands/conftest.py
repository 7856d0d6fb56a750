from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.tuner.probes.commands.bench import SCRIPT, Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    bench.write("train.py", SCRIPT)
    yield bench
    bench.close()
