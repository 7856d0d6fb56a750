"""Probers run the slices of probes; one module for each kind."""

from tuner.probes.prober import Outlook, ProbeHandle, Prober, Until
from tuner.probes.slice_plan import first_evaluation

__all__ = ["Outlook", "ProbeHandle", "Prober", "Until", "first_evaluation"]
