"""Code that the ranks of a probe run: training loops, evaluation, gradient noise, checkpoints, progress."""
