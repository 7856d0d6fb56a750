"""Analytic models of a training: seconds per sample, samples to target, and their uncertainty."""
