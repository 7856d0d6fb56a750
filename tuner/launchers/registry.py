"""The launchers that can be selected by `cluster.launcher` in a job file."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.domain.section import Section
from tuner.launchers.launcher import Launcher

#: Maps the name of each launcher in a job file to the import path of its `LauncherEntry`.
LAUNCHERS = {
    "local": "tuner.launchers.local:LOCAL",
    "torchrun": "tuner.launchers.host_nodes:TORCHRUN",
    "slurm": "tuner.launchers.slurm_nodes:SLURM",
    "ray": "tuner.launchers.ray_nodes:RAY",
    "remote": "tuner.launchers.remote:REMOTE",
    # New launchers go here.
}


class LauncherSection(Section):
    """Base class of `[cluster.NAME]`, the keys of one launcher."""

    @property
    def max_nodes(self) -> int | None:
        """Returns the largest number of nodes that the keys of this section allow; None for no limit."""
        return None


@dataclass(frozen=True, kw_only=True)
class ClusterSettings:
    """Keys of `[cluster]` in a job file that are used by every launcher.

    Args:
        devices_per_node: Number of devices per node, which is also the number of ranks per node.
        threads_per_rank: Number of CPU threads per rank.
        python: Python interpreter on the nodes; None for the interpreter of this process.
        runs_command: Whether the job runs a command instead of a Workload.
    """

    devices_per_node: int
    threads_per_rank: int
    python: str | None
    runs_command: bool


@dataclass(frozen=True, kw_only=True)
class LauncherEntry:
    """Description of a launcher for the job file.

    Args:
        nodes_are: Description of the nodes in a few words, for the documentation of `cluster.launcher`.
        create: Function that creates the launcher from its section (an object of the class `section`) and
            from the settings.
        section: Class of the section `[cluster.NAME]` with the launcher's own keys; None if it has none.
        section_holds: Description of the section's keys in a few words, for the documentation of job files.
        nodes_share_host: Whether all nodes are processes of this host, which share its cores.
    """

    nodes_are: str
    create: Callable[[Any, ClusterSettings], Launcher]
    section: type[LauncherSection] | None = None
    section_holds: str = ""
    nodes_share_host: bool = False

    @property
    def required_keys(self) -> list[str]:
        """Names of the keys in the section that have no default."""
        fields = {} if self.section is None else self.section.model_fields
        return [name for name, field in fields.items() if field.is_required()]

    @property
    def default_section(self) -> LauncherSection | None:
        """The section with all defaults, for a job file without it; None if a key has no default."""
        return None if self.section is None or self.required_keys else self.section()


def launcher_entry(name: str) -> LauncherEntry:
    """Imports the description of a launcher by its name in `LAUNCHERS`."""
    module, _, attribute = LAUNCHERS[name].partition(":")
    found: LauncherEntry = getattr(importlib.import_module(module), attribute)
    return found
