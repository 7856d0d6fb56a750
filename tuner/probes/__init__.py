"""Probers, which run probes (short trainings of one configuration) in slices (parts of a probe)."""

from tuner.probes.prober import ProbeHandle, Prober, Until

__all__ = ["ProbeHandle", "Prober", "Until"]
