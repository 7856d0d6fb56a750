"""The use case `doctor`: describes the hardware and software of this machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from tuner.launchers.slurm_submission import missing_parts
from tuner.service.opening import hardware

_PACKAGES = ("paceline", "torch", "optuna", "sqlalchemy", "alembic", "numpy", "typer", "pydantic")


def doctor_rows() -> list[tuple[str, str, str]]:
    """Returns rows of name, value and advice; the advice is empty if nothing has to be done."""
    return [
        ("python", sys.version.split()[0], ""),
        ("platform", platform.platform(), ""),
        ("hardware", hardware(), ""),
        *(_package(name, name, f"pip install {name}") for name in _PACKAGES),
        _package("postgresql driver", "psycopg", "pip install 'paceline[postgres]' to share studies"),
        _slurm(),
        _package("ray", "ray", "pip install 'paceline[ray]' for cluster.launcher = 'ray'"),
        _shared_memory(),
        _fashion_mnist(),
        *_devices(),
    ]


def _package(what: str, name: str, advice: str) -> tuple[str, str, str]:
    try:
        return what, importlib.metadata.version(name), ""
    except importlib.metadata.PackageNotFoundError:
        return what, "not installed", advice


def _slurm() -> tuple[str, str, str]:
    missing = missing_parts()
    if not missing:
        return "slurm", f"here, submitit {importlib.metadata.version('submitit')}", ""
    value = f"not here: {'; '.join(what for what, _ in missing)}"
    remedies = "; ".join(remedy for _, remedy in missing)
    return "slurm", value, f"for cluster.launcher = 'slurm': {remedies}"


def _shared_memory() -> tuple[str, str, str]:
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return (
            "shared memory",
            "none",
            "mount /dev/shm, or communication between ranks of one host may be slow",
        )
    free = shutil.disk_usage(folder).free
    advice = "" if free > 2**28 else "less than 256 MiB is free: enlarge /dev/shm"
    return "shared memory", f"{free / 2**30:.1f} GiB free", advice


def _fashion_mnist() -> tuple[str, str, str]:
    folder = Path("/usr/share/datasets/fashion-mnist")
    if folder.is_dir():
        return "data: fashion_mnist", str(folder), ""
    return "data: fashion_mnist", "not here", "apt-get install dataset-fashion-mnist, or give folder="


def _devices() -> list[tuple[str, str, str]]:
    """Returns rows with the devices and the communication backends of torch."""
    try:
        import torch
        import torch.distributed as dist
    except ImportError as error:
        return [("torch devices", "unknown", f"torch cannot be imported: {error}")]
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    count = torch.accelerator.device_count() if accelerator else len(os.sched_getaffinity(0))
    backends = [
        name
        for name, present in (("gloo", dist.is_gloo_available()), ("nccl", dist.is_nccl_available()))
        if present
    ]
    kind = accelerator.type if accelerator else "cpu"
    return [
        ("torch devices", f"{count} x {kind}", ""),
        (
            "torch backends",
            ", ".join(backends),
            "" if backends else "torch has neither gloo nor nccl, so it cannot train: install another build",
        ),
    ]
