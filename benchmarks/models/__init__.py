"""Analytic models that only benchmarks use: placement of devices, batch size and growing noise."""
