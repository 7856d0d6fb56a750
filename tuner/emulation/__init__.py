"""Emulation: many ranks in one process, with real gradients, real update rules and a virtual clock."""

from tuner.emulation.emulation import Emulation, Trained, emulation

__all__ = ["Emulation", "Trained", "emulation"]
