"""Commands on a Ray cluster: the conformance suite over a real one, nodes that die, wait and never come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import RayCluster
from tests.tuner.launchers.command_conformance import CommandConformance
from tuner.launchers import CommandLauncher, RayNodes

pytestmark = pytest.mark.slow


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path


class TestRayNodes(CommandConformance):
    @pytest.fixture(autouse=True)
    def cluster(self, ray_cluster: RayCluster) -> None:
        self._address = ray_cluster.address

    @pytest.fixture
    def launcher(self) -> Iterator[CommandLauncher]:
        launcher = self.another_launcher()
        yield launcher
        launcher.close()

    def another_launcher(self) -> CommandLauncher:
        return CommandLauncher(RayNodes(self._address))
