"""Many ranks in one process: real gradients, the strategies' own rules, and a clock that is only counted."""

from tuner.emulation.emulation import Emulation, Trained, emulation
from tuner.emulation.timing import VirtualCluster

__all__ = ["Emulation", "Trained", "VirtualCluster", "emulation"]
