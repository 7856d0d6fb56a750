"""Probers, which run probes (short training runs of one configuration) in slices; one module per kind."""

from tuner.probes.prober import ProbeHandle, Prober, Until

__all__ = ["ProbeHandle", "Prober", "Until"]
