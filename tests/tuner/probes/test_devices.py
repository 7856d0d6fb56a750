"""What a rank does differently on an accelerator, as far as it shows without one."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from tuner.domain.errors import ProbeError
from tuner.launchers import rank_process
from tuner.launchers.local import PRELOAD
from tuner.probes.ranks.checkpoint_state import on_host, random_state, set_random_state
from tuner.transport.rendezvous import rank_device

_WATCHED_IMPORT = """
import sys, torch
def refuse(*_):
    raise SystemExit("a device was asked for while modules are imported")
for module, names in ((torch.cuda, ("is_available", "device_count", "init", "_lazy_init", "current_device")),
                      (torch.accelerator, ("is_available", "device_count", "current_device_index"))):
    for name in names:
        setattr(module, name, refuse)
for name in sys.argv[1:]:
    __import__(name)
"""


@pytest.mark.slow
def test_what_is_imported_before_ranks_fork_asks_for_no_device() -> None:
    """CUDA cannot be used in a process that is forked from one in which it was initialised, or counted."""
    subprocess.run([sys.executable, "-c", _WATCHED_IMPORT, *PRELOAD], check=True, timeout=120)


def test_a_rank_without_a_device_of_its_own_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    chosen: list[int] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    assert rank_device(0) == torch.device("cuda", 0)
    with pytest.raises(ProbeError, match=r"2 ranks or more run on this host, but torch sees 1 x cuda"):
        rank_device(1)
    assert rank_device(1, is_shared=True) == torch.device("cuda", 0)
    assert chosen == [0, 0]


def test_a_state_on_the_host_keeps_its_form() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict()
    moved = on_host({"model": state, "arrived": {3: (7, torch.ones(2))}, "rates": [0.1], "none": None})
    assert type(moved["model"]) is type(state)
    assert moved["model"]._metadata == state._metadata  # type: ignore[attr-defined]
    assert moved["model"]["0.weight"].data_ptr() == state["0.weight"].data_ptr()
    assert moved["arrived"][3][0] == 7
    assert (moved["rates"], moved["none"]) == ([0.1], None)


def test_tensors_of_a_device_are_brought_to_the_host() -> None:
    class Elsewhere(torch.Tensor):
        def cpu(self) -> torch.Tensor:  # type: ignore[override]
            return torch.ones(2)

    moved = on_host({"buffers": [torch.zeros(2).as_subclass(Elsewhere)]})
    assert torch.equal(moved["buffers"][0], torch.ones(2))


def test_a_run_saved_on_the_cpu_seeds_the_device_it_resumes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    fake = SimpleNamespace(manual_seed=seeded.append)
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    torch.manual_seed(31)
    state = random_state(torch.device("cpu"))
    torch.manual_seed(5)
    set_random_state(state, torch.device("cuda"))
    assert seeded == [31]


@pytest.mark.parametrize(("is_initialized", "freed"), [(True, 1), (False, 0)])
def test_cached_memory_of_a_device_is_given_back_between_tasks(
    monkeypatch: pytest.MonkeyPatch, is_initialized: bool, freed: int
) -> None:
    calls: list[Any] = []
    fake = SimpleNamespace(is_initialized=lambda: is_initialized, empty_cache=lambda: calls.append(1))
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch, "get_device_module", lambda device: fake)
    rank_process._forget_memory()
    assert len(calls) == freed
