"""Ranks of functions over an engine's nodes: the same suite as the local launcher's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.tuner.launchers.conformance import LauncherConformance
from tuner.launchers import CommandLauncher, LocalNodes


@pytest.mark.slow
class TestRanksOnLocalNodes(LauncherConformance):
    @pytest.fixture
    def launcher(self) -> Iterator[CommandLauncher]:
        launcher = CommandLauncher(LocalNodes())
        yield launcher
        launcher.close()
