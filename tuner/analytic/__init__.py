"""Analytic models of a training: seconds per sample, number of samples to target, and their uncertainty.

Terms of this package:

- Law: an analytic model, a formula with parameters that are fitted to measurements.
- Draws: posterior samples of a predicted quantity.
- Exchange: the communication of gradients or parameters between ranks.
- Emulated ranks: ranks that are trained on this host under a virtual clock.
- Samples to target: the number of training samples that a run processes until it reaches its target.
"""
