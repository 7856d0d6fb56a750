"""Checkpoints of a device: resumed bit for bit, and moved to the CPU and back."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.device_checks.findings import Findings
from search_spaces import Configuration
from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.launchers import LocalLauncher
from tuner.probes import Until
from tuner.probes.training import TrainingProber

_BATCH_SIZE = 32
#: Where the runs are interrupted, and where they end.
_HALF, _WHOLE = 40 * _BATCH_SIZE, 80 * _BATCH_SIZE
#: cuBLAS is deterministic only with a workspace of its own.
_DETERMINISTIC = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
#: Single precision on two devices, after 80 steps.
_MOST_DISTANCE = 1e-2


def check(found: Findings) -> None:
    """A run in one piece, the same run in two processes, and one that crosses between devices."""
    on_device = {**_DETERMINISTIC, "PACELINE_CHECKED_DEVICE": found.device}
    # Nobody has the device meanwhile: the checkpoint must be readable without it.
    on_cpu = {**_DETERMINISTIC, "PACELINE_CHECKED_DEVICE": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    with _environment(on_device), LocalLauncher() as launcher:
        whole = _content(_trained(found, launcher, "whole", 0.2, _WHOLE))
        plain = _content(_trained(found, launcher, "plain", 0.0, _WHOLE))
        _trained(found, launcher, "resumed", 0.2, _HALF)
        _trained(found, launcher, "crossing", 0.0, _HALF)
    with _environment(on_cpu), LocalLauncher() as launcher:
        _trained(found, launcher, "crossing", 0.0, (_HALF + _WHOLE) // 2)
    with _environment(on_device), LocalLauncher() as launcher:
        resumed = _content(_trained(found, launcher, "resumed", 0.2, _WHOLE))
        crossed = _content(_trained(found, launcher, "crossing", 0.0, _WHOLE))
        _train(launcher, found.folder / "reached", 0.0, _WHOLE, target=0.05)
    differing = _differing(whole, resumed)
    found.note("tensors_compared", len(_tensors(whole)))
    found.expect("resumed_run_is_equal_bit_for_bit", not differing, ", ".join(differing[:8]))
    found.require("distance_after_crossing", _distance(plain, crossed), at_most=_MOST_DISTANCE)
    # As a user loads it, who need not have the device.
    model = torch.load(found.folder / "reached" / "model.pt", weights_only=True)
    places = {value.device.type for value in model.values() if isinstance(value, Tensor)}
    found.expect("trained_model_lies_on_the_cpu", places == {"cpu"}, f"it lies on {places}")


def _trained(found: Findings, launcher: LocalLauncher, name: str, dropout: float, samples: int) -> Path:
    folder = found.folder / name
    began = time.monotonic()
    ended = _train(launcher, folder, dropout, samples)
    if ended.outcome is not Outcome.PAUSED:
        raise RuntimeError(f"{name} ended {ended.outcome.value}: {ended.error}")
    found.note(f"{name}_until_{samples}_seconds", time.monotonic() - began)
    return folder


def _train(
    launcher: LocalLauncher, folder: Path, dropout: float, samples: int, *, target: float = 1.0
) -> Measurement:
    """One slice, resumed from what the folder holds."""
    job = Job.model_validate(
        {
            "name": "resumed",
            "workload": {
                "path": "benchmarks.device_checks.workloads:ReproducibleDigits",
                "parameters": {"dropout": dropout},
                "optimizer": {"name": "adamw"},
            },
            "cluster": {"nodes": [1]},
            "goal": {"metric": "accuracy", "target": target},
            # The check's own time limit ends what hangs; on shared cores a rank may take a minute to start.
            "probe": {"hang_timeout": "10m"},
            "space": {"batch_size": [_BATCH_SIZE], "learning_rate": {"low": 1e-4, "high": 1e-1}},
        }
    )
    configuration = Configuration(nodes=1, batch_size=_BATCH_SIZE, learning_rate=2e-3, strategy="all_reduce")
    # Its `close` would close the launcher as well, which other runs share.
    prober = TrainingProber(job, folder.parent, launcher)
    handle = prober.start(configuration, Purpose.TRAINING, Until(samples=samples), folder)
    while (measured := prober.poll(handle)).outcome is Outcome.RUNNING:
        time.sleep(0.02)
    return measured


def _content(folder: Path) -> dict[str, Any]:
    """The newest checkpoint, as it lies on the disk."""
    newest = CheckpointFolder(folder / "checkpoints").latest()
    if newest is None:
        raise RuntimeError(f"{folder.name} left no checkpoint")
    content: dict[str, Any] = torch.load(newest.path, map_location="cpu", weights_only=True)
    return content


def _tensors(content: Any, name: str = "") -> dict[str, Tensor]:
    """All tensors of a checkpoint by their path in it."""
    if isinstance(content, Tensor):
        return {name: content}
    parts: Iterator[tuple[Any, Any]] = iter(())
    if isinstance(content, Mapping):
        parts = iter(content.items())
    elif isinstance(content, list | tuple):
        parts = iter(enumerate(content))
    return {path: value for key, part in parts for path, value in _tensors(part, f"{name}/{key}").items()}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    first, second = _tensors(one), _tensors(other)
    absent = sorted(first.keys() ^ second.keys())
    return absent + [
        name for name in first.keys() & second.keys() if not torch.equal(first[name], second[name])
    ]


def _distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Distance of two models' parameters over their norm."""
    first = torch.cat([value.double().flatten() for value in one["model"].values()])
    second = torch.cat([value.double().flatten() for value in other["model"].values()])
    return float((first - second).norm() / first.norm())


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    """Within it, ranks that start see these variables as well."""
    saved = {name: os.environ.get(name) for name in more}
    os.environ.update(more)
    try:
        yield
    finally:
        for name, value in saved.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
