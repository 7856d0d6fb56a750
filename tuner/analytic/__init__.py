"""Analytic models of a training: seconds per sample, number of samples to target, and their uncertainty.

Terms of this package:

- Law: an analytic model, a formula with parameters that are fitted to measurements.
- Residual: the deviation of measurements from a law that varies smoothly with the inputs, modeled as a
  Gaussian process.
- Draws: posterior samples of a predicted quantity.
- Exchange: the communication of gradients or parameters between ranks.
- Emulated ranks: ranks that are trained on this host under a virtual clock.
- Training progress: the share of the way of the metric from its first value (0) to its target (1).
- E-fold: a factor of e in the number of samples.
- Samples to target: the number of training samples that a run processes until it reaches its target.
"""
