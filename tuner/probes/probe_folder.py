"""Folder of a probe: the plan of its last slice (part of the probe's training), and its learning curve."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tuner.domain.errors import StorageError
from tuner.domain.measurement import CurvePoint, Outcome
from tuner.probes.slice_plan import SlicePlan

DESCRIPTION_FILE = "probe.json"
METRICS_FILE = "metrics.jsonl"

#: Size of the file that is written to check for free disk space.
_SPARE_BYTES = 2**16


class ProbeFolder:
    """Writes and reads a probe's `probe.json` and `metrics.jsonl`.

    - Each line of `metrics.jsonl` has the number of a slice. It also has either a score, or an end entry,
      which says that the slice has ended.
    - A slice without an end entry is lost: the tuner was killed while the slice ran. A slice is also lost if
      its end entry was withdrawn, because the study database did not store the slice.
    - The next slice of the run takes over those scores of a lost slice that are not beyond the checkpoint
      from which the run resumes.

    Args:
        folder: Folder of the probe; created if it does not exist.

    Raises:
        StorageError: The folder cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise unwritable(folder, error) from error
        self._slice = 0
        self._reported: set[int]
        self._lost: dict[int, CurvePoint]
        self._read_slices()

    @property
    def slice_number(self) -> int:
        """Number of the current slice, counted from 1; lost slices are counted too."""
        return self._slice

    @property
    def ended_slices(self) -> frozenset[int]:
        """Numbers of the slices that have ended."""
        return frozenset(self._ended)

    @property
    def reported_samples(self) -> frozenset[int]:
        """For each score of the slices that have ended: the number of samples processed at the score."""
        return frozenset(self._reported)

    @property
    def reported_points(self) -> list[CurvePoint]:
        """Scores of the slices that have ended, ordered by the number of samples processed."""
        found = {samples: point for number in self._ended for samples, point in self._points[number].items()}
        return [found[samples] for samples in sorted(found)]

    def restart_slice(self) -> None:
        """Withdraws all scores of the current slice that were added so far.

        Raises:
            StorageError: The file cannot be written.
        """
        self._append({"slice": self._slice, "restarted": True})

    def lost_points(self, up_to_samples: int) -> list[CurvePoint]:
        """Returns the scores of lost slices that the run keeps when it resumes, in the order of training.

        Args:
            up_to_samples: Number of samples processed at the checkpoint from which the run resumes.
        """
        return [point for samples, point in sorted(self._lost.items()) if samples <= up_to_samples]

    def describe(self, plan: SlicePlan, *, num_ranks: int) -> None:
        """Writes the plan of the current slice and the versions of the software to `probe.json`.

        Args:
            plan: Plan of the current slice: job, configuration, purpose and limits.
            num_ranks: Number of ranks that train.

        Raises:
            StorageError: The file cannot be written.
        """
        description = {
            "slice": self._slice,
            "configuration": plan.configuration.as_dict(),
            "purpose": plan.purpose.value,
            "until": {key: value for key, value in asdict(plan.until).items() if value is not None},
            "job": plan.job.name,
            "seed": plan.job.seed,
            "workload": plan.job.published()["workload"],
            "environment": {
                "python": platform.python_version(),
                "torch": _version("torch"),
                "numpy": _version("numpy"),
                "paceline": _version("paceline"),
                "platform": platform.platform(),
                "cores": len(os.sched_getaffinity(0)),
                "ranks": num_ranks,
                "threads_per_rank": plan.job.cluster.threads_per_rank,
            },
        }
        try:
            (self.folder / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1) + "\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def add_point(self, point: CurvePoint) -> None:
        """Appends a score of the current slice to `metrics.jsonl`.

        Args:
            point: The score; it replaces an earlier score of this slice at the same number of samples.

        Raises:
            StorageError: The file cannot be written.
        """
        self._append({"slice": self._slice, **asdict(point)})

    def end_slice(self, outcome: Outcome) -> None:
        """Appends the end entry of the current slice to `metrics.jsonl`.

        Args:
            outcome: How the slice has ended.

        Raises:
            StorageError: The file cannot be written.
        """
        self._append({"slice": self._slice, "ended": outcome.value})

    def take_back_ends(self, stored_samples: Collection[int]) -> None:
        """Checks each ended slice, and marks it as lost if the study database lacks any of its scores.

        Args:
            stored_samples: For each score of this run in the study database, the number of samples processed.

        Raises:
            StorageError: The file cannot be written.
        """
        stored = set(stored_samples)
        lost = [number for number in sorted(self._ended) if not self._points[number].keys() <= stored]
        for number in lost:
            self._append({"slice": number, "ended": None})
        if lost:
            self._read_slices()

    def check_disk_space(self) -> None:
        """Checks that the disk has space, by writing a small file to the folder and deleting it.

        Raises:
            StorageError: The disk is full or the folder was removed.
        """
        try:
            with tempfile.TemporaryFile(dir=self.folder) as file:
                file.write(bytes(_SPARE_BYTES))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _append(self, line: Mapping[str, Any]) -> None:
        try:
            with (self.folder / METRICS_FILE).open("a") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def _read_slices(self) -> None:
        points: dict[int, dict[int, CurvePoint]] = {}
        ended: set[int] = set()
        self._reported, self._lost = set(), {}
        path = self.folder / METRICS_FILE
        try:
            lines = path.read_text().splitlines() if path.exists() else []
        except OSError as error:
            raise unwritable(self.folder, error) from error
        for text in lines:
            try:
                line = json.loads(text)
                number = int(line.pop("slice"))
                of_slice = points.setdefault(number, {})
                if "restarted" in line:
                    of_slice.clear()
                elif "ended" in line:
                    (ended.discard if line["ended"] is None else ended.add)(number)
                else:
                    point = CurvePoint(**line)
                    of_slice[point.samples] = point
            except (ValueError, KeyError, TypeError):
                # A process was killed while it wrote this line: only this score is lost.
                continue
        self._slice = max(points, default=0) + 1
        self._points, self._ended = points, ended
        for number in ended:
            self._reported.update(points[number])
        for number in sorted(set(points) - ended):
            self._lost.update(points[number])
        self._lost = {s: point for s, point in self._lost.items() if s not in self._reported}


def take_back_ends(folder: Path, stored_samples: Collection[int]) -> None:
    """Marks ended slices in a probe's folder as lost if the study database lacks any of their scores.

    Does nothing if the folder has no `metrics.jsonl`.

    Args:
        folder: Folder of the probe.
        stored_samples: For each score of the run in the study database, the number of samples processed.

    Raises:
        StorageError: The folder cannot be read or written.
    """
    if (folder / METRICS_FILE).exists():
        ProbeFolder(folder).take_back_ends(stored_samples)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def unwritable(folder: Path, error: OSError) -> StorageError:
    """Returns the error for a probe's folder that cannot be created, read or written."""
    return StorageError(
        f"the probe's folder {folder} cannot be used: {error}; choose another output folder or free space"
    )
