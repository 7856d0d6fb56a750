"""Probers: what carries out slices of probes, one file a kind."""

from tuner.probes.prober import ProbeHandle, Prober, Until
from tuner.probes.slice_plan import first_evaluation

__all__ = ["ProbeHandle", "Prober", "Until", "first_evaluation"]
