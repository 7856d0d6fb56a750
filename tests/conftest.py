"""Settings of the whole suite."""

from __future__ import annotations

import os

from hypothesis import settings

# Fixtures of the whole session, wherever they are asked for.
from tests.host_network import four_hosts as four_hosts
from tests.host_network import two_hosts as two_hosts
from tests.ray_cluster import ray_cluster as ray_cluster
from tests.slurm_cluster import slurm_cluster as slurm_cluster

# Before torch or numpy is first imported: tests share few cores with the ranks they start.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

# No test asserts wall-clock seconds, hypothesis's own deadline included.
settings.register_profile("paceline", deadline=None)
settings.load_profile("paceline")
