"""Analytic models of a training: seconds per sample, number of samples to target, and their uncertainty.

Terms of this package:

- Cost model: a formula with parameters that are fitted to measurements. The code calls it a law.
- Residual: the deviation of measurements from a formula, which varies smoothly with the inputs and is modeled
  as a Gaussian process.
- Draws: posterior samples of a predicted quantity, which represent its uncertainty.
- Exchange: the communication of gradients or parameters between ranks.
- Emulated ranks: ranks of a cluster that exists only as a description. They are trained on this host under a
  virtual clock.
- Training progress: how far the metric is on the way from its first value (progress 0) to its target
  (progress 1).
- E-fold: a factor of e (2.718...) in the number of samples.
- Samples to target: the number of training samples that a run processes until it reaches its target.
"""
