"""Probes that run the user's training script: start it, read its metrics, compute its training clock.

A run is the training of one configuration; it is trained in slices. A line is one report of the script, from
its output or from a file that it writes. The position of a line is the training progress that it reports: the
number of optimizer steps and of samples processed since the run began. A score is a value of the metric that
the job file specifies in `[goal]`.
"""
