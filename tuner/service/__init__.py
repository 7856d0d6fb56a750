"""Use cases of the command line, such as `run` and `report`; the caller passes the database of studies.

Terms of this package:

- study: the search for the best configuration of one job, as the database stores it. Optuna's study of the
  same search is called the Optuna study.
- recording: a file with measured runs, which a job can replay instead of training.
- probe: a short or complete training of one configuration.
- slice: a part of a probe that runs without interruption.
- prober: the object that runs probes.
- baseline: the configuration that the user trains with at present, from [baseline] in the job file.
- lease: the time-limited right of one process to work on a probe.
"""
