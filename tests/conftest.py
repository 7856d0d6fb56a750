"""Settings of the whole suite."""

from __future__ import annotations

import os

import pytest

from tests import levels

# Fixtures of the whole session, wherever they are asked for.
from tests.host_network import four_hosts as four_hosts
from tests.host_network import two_hosts as two_hosts
from tests.ray_cluster import ray_cluster as ray_cluster
from tests.slurm_cluster import slurm_cluster as slurm_cluster
from tests.warm_ranks import warm_ranks as warm_ranks

# Before torch or numpy is first imported: tests share few cores with the ranks they start.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that chooses the level of `make test`."""
    parser.addoption("--fast", action="store_true", help="the level of `make test`: what is not marked slow")


def pytest_configure(config: pytest.Config) -> None:
    """Chooses the level before test modules are imported: their properties ask for it."""
    levels.configure(config)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Selects the tests of the level and groups those that share something."""
    levels.select(config, items)
