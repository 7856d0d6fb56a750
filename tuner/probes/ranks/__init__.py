"""What a training rank does in a probe: training loop, evaluation, gradient noise, checkpoints, progress."""
