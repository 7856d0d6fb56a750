"""The launchers that `cluster.launcher` in a job file can name."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.domain.section import Section
from tuner.launchers.launcher import Launcher

#: Each launcher's name in a job file, and the import path of its `LauncherEntry`.
LAUNCHERS = {
    "local": "tuner.launchers.local:LOCAL",
    "torchrun": "tuner.launchers.host_nodes:TORCHRUN",
    "slurm": "tuner.launchers.slurm_nodes:SLURM",
    "ray": "tuner.launchers.ray_nodes:RAY",
    # New launchers go here.
}


class LauncherSection(Section):
    """Base class of `[cluster.NAME]`, the keys of one launcher."""

    @property
    def max_nodes(self) -> int | None:
        """The largest number of nodes that the keys allow; None if they do not limit it."""
        return None


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Keys of `[cluster]` that concern every launcher.

    Args:
        devices_per_node: Devices, and so ranks, of one node.
        threads_per_rank: CPU threads of one rank.
        python: Interpreter on the nodes; None for this process's.
        runs_command: Whether the job runs a command instead of a Workload.
    """

    devices_per_node: int
    threads_per_rank: int
    python: str | None
    runs_command: bool


@dataclass(frozen=True, kw_only=True)
class LauncherEntry:
    """What a job file needs to know of a launcher.

    Args:
        nodes_are: Where nodes come from, for the description of `cluster.launcher`.
        create: Makes the launcher from its section, of the class `section`, and the settings of the cluster.
        section: The launcher's own keys, `[cluster.NAME]`; None if it has none.
        section_holds: Describes the section in a few words.
        nodes_share_host: Whether all nodes are processes of this host, which share its cores.
    """

    nodes_are: str
    create: Callable[[Any, ClusterSettings], Launcher]
    section: type[LauncherSection] | None = None
    section_holds: str = ""
    nodes_share_host: bool = False

    @property
    def required_keys(self) -> list[str]:
        """The keys of the section without a default."""
        fields = {} if self.section is None else self.section.model_fields
        return [name for name, field in fields.items() if field.is_required()]

    @property
    def default_section(self) -> LauncherSection | None:
        """The section of a job file that does not state it."""
        return None if self.section is None or self.required_keys else self.section()


def launcher_entry(name: str) -> LauncherEntry:
    """The entry of a launcher by its name in `LAUNCHERS`."""
    module, _, attribute = LAUNCHERS[name].partition(":")
    found: LauncherEntry = getattr(importlib.import_module(module), attribute)
    return found
