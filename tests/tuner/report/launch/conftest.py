from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder whose name wants quotes."""
    made = tmp_path / "it's a folder $HOME"
    made.mkdir()
    return made
