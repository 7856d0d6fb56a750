"""Probers run the slices of probes; one module for each kind."""

from tuner.probes.prober import ProbeHandle, Prober, Until

__all__ = ["ProbeHandle", "Prober", "Until"]
