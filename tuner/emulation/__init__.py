"""Emulation of many ranks in one process: gradients and update rules are real, time is a virtual clock's."""

from tuner.emulation.emulation import Emulation, Trained, emulation

__all__ = ["Emulation", "Trained", "emulation"]
