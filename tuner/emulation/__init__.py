"""Many ranks in one process: real gradients, the strategies' own rules, and a clock that is only counted."""

from tuner.emulation.emulation import Emulation, Trained, emulation

__all__ = ["Emulation", "Trained", "emulation"]
