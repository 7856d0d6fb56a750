"""Resume a run on other nodes: copy its checkpoint to a new probe and convert its training clock."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from search_spaces import Configuration
from tuner.domain.checkpoints import write_atomically
from tuner.domain.errors import StorageError
from tuner.domain.measurement import Measurement, Outcome
from tuner.probes import Until

_NAME = "carried.json"
_CHECKPOINTS = "checkpoints"


@dataclass(frozen=True, kw_only=True)
class Transferred:
    """Difference between the clock of a run resumed on other nodes and that of its checkpoint.

    Args:
        offset_seconds: To be added to the prober's training clock.
    """

    offset_seconds: float = 0.0

    def of(self, measurement: Measurement) -> Measurement:
        """A slice's measurement on the clock of the run's present nodes."""
        return replace(
            measurement,
            training_seconds=measurement.training_seconds + self.offset_seconds,
            curve=tuple(
                replace(p, training_seconds=p.training_seconds + self.offset_seconds)
                for p in measurement.curve
            ),
        )

    def until(self, until: Until) -> Until:
        """A slice's end on the clock of the checkpoint."""
        if until.training_seconds is None:
            return until
        return replace(until, training_seconds=until.training_seconds - self.offset_seconds)


def resume_on_other_nodes(
    source: Measurement, source_folder: Path, folder: Path, to: Configuration, ratio: float
) -> Measurement:
    """Puts a run's newest checkpoint into another probe's folder.

    Args:
        source: All the run showed so far, on the clock of its present nodes.
        source_folder: Its probe's folder.
        folder: The new probe's folder; exists.
        to: The new configuration; it differs in nodes only.
        ratio: Seconds a sample on the new nodes over those on the old ones.

    Returns:
        What the new probe starts with: the curve by samples as measured, its seconds priced for the new
        nodes, nothing charged.

    Raises:
        StorageError: The folder cannot be written.
    """
    seconds = source.training_seconds * ratio
    # The checkpoint's clock is the prober's own; earlier moves to other nodes put the run ahead of it.
    checkpoint_seconds = source.training_seconds - transferred(source_folder).offset_seconds
    try:
        shutil.copytree(source_folder / _CHECKPOINTS, folder / _CHECKPOINTS, dirs_exist_ok=True)
        text = json.dumps({"offset_seconds": seconds - checkpoint_seconds}).encode()

        def write(file: BinaryIO) -> None:
            file.write(text)

        write_atomically(folder / _NAME, write)
    except OSError as error:
        raise StorageError(
            f"the checkpoint cannot be copied to {folder}: {error}; free space there"
        ) from error
    return replace(
        source,
        configuration=to,
        outcome=Outcome.PAUSED,
        curve=tuple(replace(p, training_seconds=p.training_seconds * ratio) for p in source.curve),
        ranks=(),
        training_seconds=seconds,
        scoring_seconds=0.0,
        startup_seconds=0.0,
        repeated_seconds=0.0,
        charged_seconds=0.0,
        charged_dollars=0.0,
        shared_seconds=0.0,
        error=None,
        checkpoint=None,
    )


def transferred(folder: Path) -> Transferred:
    """What was copied into a probe's folder; nothing if the run started there."""
    path = folder / _NAME
    if not path.is_file():
        return Transferred()
    return Transferred(offset_seconds=float(json.loads(path.read_text())["offset_seconds"]))
