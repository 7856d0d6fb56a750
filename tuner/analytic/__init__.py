"""What is believed of a training: seconds a step, samples to target, and how sure that is."""
