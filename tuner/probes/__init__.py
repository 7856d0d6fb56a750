"""Probers: what carries out slices of probes, one file a kind."""

from tuner.probes.marks import first_mark
from tuner.probes.prober import ProbeHandle, Prober, Until

__all__ = ["ProbeHandle", "Prober", "Until", "first_mark"]
