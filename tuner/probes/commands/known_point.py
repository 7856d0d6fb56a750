"""How far the run of a probe was known when its last slice ended, in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from tuner.domain.checkpoints import write_atomically
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER

_PROGRESS_FILE = "progress.json"


def known_point(probe_folder: Path) -> ReadPoint:
    """How far a probe's run was known when its last slice ended; its beginning if there was none."""
    path = probe_folder / CHECKPOINTS_FOLDER / _PROGRESS_FILE
    try:
        return ReadPoint(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return ReadPoint()


def write_known_point(probe_folder: Path, point: ReadPoint) -> None:
    """Stores how far a probe's run is known.

    Raises:
        OSError: It cannot be written.
    """
    text = json.dumps(asdict(point)).encode()

    def write(file: BinaryIO) -> None:
        file.write(text)

    write_atomically(probe_folder / CHECKPOINTS_FOLDER / _PROGRESS_FILE, write)
