"""Code that the ranks of a probe execute: training loops, evaluation, gradient noise and checkpoints."""
