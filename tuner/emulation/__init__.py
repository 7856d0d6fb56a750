"""Emulation of many ranks in one process: gradients and updates are computed, and time is simulated."""

from tuner.emulation.emulation import Emulation, Trained, emulation

__all__ = ["Emulation", "Trained", "emulation"]
