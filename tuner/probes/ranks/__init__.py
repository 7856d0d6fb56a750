"""Code of the ranks of a probe: training loop, evaluation, gradient noise, checkpoints, progress."""
