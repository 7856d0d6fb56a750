"""The state of every random generator a workload may draw from: kept, brought back, seeded."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(*entropy: int) -> None:
    """Seeds Python's, NumPy's and torch's generators from some integers, at least 0."""
    words = np.random.SeedSequence(entropy).generate_state(3)
    random.seed(int(words[0]))
    np.random.seed(int(words[1]))
    torch.manual_seed(int(words[2]))


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of all generators, for `set_random_state`; it survives `torch.save`."""
    name, keys, position, has_gauss, gauss = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.array(keys, dtype=np.int64)), position, has_gauss, gauss),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state["device"] = torch.get_device_module(device).get_rng_state(device)
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Brings back what `random_state` gave; a device that it does not know is seeded from torch's seed."""
    version, words, gauss_next = state["python"]
    random.setstate((version, tuple(words), gauss_next))
    name, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if device.type == "cpu":
        return
    if "device" in state:
        torch.get_device_module(device).set_rng_state(state["device"], device)
    else:
        # Saved on a CPU. What this process drew before must not matter.
        torch.get_device_module(device).manual_seed(torch.initial_seed())


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Whatever is drawn within does not change what is drawn afterwards."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
