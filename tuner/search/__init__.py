"""Search policies, which choose the next measurement, and the search loop, which runs it.

The terms of this package:

- configuration: values of all axes of the search space, such as the number of nodes, the batch size, the
  learning rate and the communication strategy. A candidate is a configuration that may be recommended.
- study: the search for the best configuration of one job, stored in the ledger (the database of Paceline).
  The study of Optuna that stores the same search as trials is called the Optuna study.
- probe: an attempt to train or time one configuration.
- lease: the time-limited right of one process of Paceline to work on a probe.
- slice: a part of a probe that runs without interruption. A probe is paused between its slices, and every
  slice is charged to the budget.
- run: the training of a probe, with the measurements of all its slices.
- score: an evaluation of the goal's metric. The target is the value that the metric has to reach.
- samples to target, time to target: number of training samples processed, and training seconds, until a run
  reaches the target.
- incumbent: the candidate with the smallest expected cost so far.
- knob: a parameter of a communication strategy, such as `tau`.
- `(num,)` in the description of an array: its shape; num is the number of candidates.
- cost model: a model of step time or of samples to target in closed form, with parameters that are fitted to
  measurements. The code calls it a law.
- slope model: a linear regression of log step time, or of log samples to target, on the log values of the
  axes.
- emulated ranks: ranks of a cluster that exists only as a description ([cluster.machine] of the job file).
  Their gradients are computed on this machine, and their seconds are computed from the description.
- key of a run (`run_key`): a value that is equal for all configurations with the same learning curve.
- key of a step time (`timing_key`): a value that is equal for all configurations with the same step time.
"""
