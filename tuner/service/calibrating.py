"""The use case `calibrate`: measures step times and network links of the nodes that can be used now.

The result is the section `[cluster.machine]` of a job file, which describes emulated nodes by constants such
as the latency and bandwidth of a link.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from tuner.calibration import (
    CalibrationPlan,
    Constants,
    Effort,
    Figure,
    Link,
    calibrate,
    machine_section,
)
from tuner.calibration.plan import batch_sizes_to_time
from tuner.domain.errors import JobError
from tuner.launchers import Launcher
from tuner.service.check_command import tiny_configuration
from tuner.service.launchers import job_launcher, passing_folder
from tuner.service.opening import OpenedJob, checked_workload, hardware, require_training

#: Maximum number of nodes to measure. More nodes take longer to start, and the result stays the same.
_MOST_NODES = 8
Listen = Callable[[str], None]


def calibrate_job(
    opened: OpenedJob,
    *,
    num_nodes: int | None = None,
    effort: Effort | None = None,
    listen: Listen = lambda _words: None,
    make_launcher: Callable[[OpenedJob], Launcher] | None = None,
) -> Constants:
    """Measures the step times of a job's workload and the links between its nodes.

    Args:
        opened: The job.
        num_nodes: Number of nodes to measure, at least 2. With the local launcher, the default is the number
            of nodes that the cores of this machine suffice for; with other launchers, the largest number of
            nodes in the job. The default is at most 8.
        effort: Numbers of steps and messages in each measurement; more give more exact results.
        listen: Function that is called with the name of each measurement when it starts.
        make_launcher: Function that creates the launcher. By default, it is the launcher in the job file.

    Raises:
        JobError: The job replays a recording, its Workload cannot be built, or `num_nodes` is below 2.
        ProbeError: A rank failed.
    """
    require_training(opened)
    if num_nodes is not None and num_nodes < 2:
        raise JobError(
            f"--nodes {num_nodes}: links are measured between nodes, so at least 2 are needed (nodes of the "
            "local launcher are processes of this machine)"
        )
    _, num_samples = checked_workload(opened)
    plan = calibration_plan(opened, num_nodes=num_nodes, num_samples=num_samples, effort=effort or Effort())
    # The folder must exist until the launcher is closed, because the launcher sends its last messages to
    # ranks through files in this folder.
    with passing_folder(opened, "calibrate") as folder:
        launcher = make_launcher(opened) if make_launcher is not None else job_launcher(opened)
        try:
            return calibrate(plan, launcher, folder, listen)
        finally:
            launcher.close()


def calibration_plan(
    opened: OpenedJob, *, num_nodes: int | None, num_samples: int, effort: Effort
) -> CalibrationPlan:
    """Returns the plan of the measurements: numbers of nodes and batch sizes per rank.

    Args:
        opened: The job.
        num_nodes: Number of nodes to measure; None for the default of `calibrate_job`.
        num_samples: Number of samples in the training set.
        effort: Numbers of steps and messages in each measurement; more give more exact results.
    """
    job, devices = opened.job, opened.job.cluster.devices_per_node
    largest = num_nodes or _nodes_at_hand(opened)
    counts = [2]
    while counts[-1] * 2 < largest:
        counts.append(counts[-1] * 2)
    if largest not in counts:
        counts.append(largest)
    most_ranks = max(job.cluster.nodes) * devices
    assert job.space is not None
    batches = sorted(int(b) for b in job.space.axes()["batch_size"].levels())
    return CalibrationPlan(
        job=job,
        job_folder=opened.folder,
        batch_sizes_per_rank=batch_sizes_to_time(
            batches[0] // most_ranks,
            batches[-1] // devices,
            num_samples=num_samples,
            most=job.probe.max_batch_size_per_rank,
        ),
        learning_rate=float(tiny_configuration(opened).learning_rate),
        node_counts=tuple(counts),
        effort=effort,
    )


def _nodes_at_hand(opened: OpenedJob) -> int:
    section = opened.job.cluster
    if not section.nodes_share_host:
        most = max(section.nodes)
        listed = (section.launcher_section and section.launcher_section.max_nodes) or most
        return max(2, min(_MOST_NODES, most, listed, section.nodes_at_hand or most))
    threads = opened.job.cluster.devices_per_node * opened.job.cluster.threads_per_rank
    return max(2, min(_MOST_NODES, len(os.sched_getaffinity(0)) // threads))


def section_of(constants: Constants, opened: OpenedJob) -> str:
    """Returns the section `[cluster.machine]` as TOML, with a comment that states how it was measured."""
    nodes = max(constants.rank_counts) // opened.job.cluster.devices_per_node
    made_by = (
        f"Measured by `paceline calibrate {opened.path.name} --nodes {nodes}` on {hardware()}.\n"
        'Use it with [probe] kind = "emulated".'
    )
    return machine_section(constants, made_by=made_by)


def constants_rows(constants: Constants) -> list[dict[str, Any]]:
    """Returns one table row per measured constant: its name, its value, and the ends of its interval."""
    rows = [
        _row("fixed seconds of a step", constants.fixed_seconds),
        _row("seconds per sample", constants.seconds_per_sample),
        {"name": "largest relative error of these step times", "value": constants.step_misfit},
        {
            "name": "step time if all ranks of a node compute / if only one rank computes",
            "value": constants.neighbour_slowdown,
        },
        _row("jitter", constants.jitter),
        {"name": "persistent share of jitter", "value": constants.persistent},
    ]
    if constants.overlap is not None:
        rows.append(_row("overlap", constants.overlap))
    rows += _link_rows("all-reduce", constants.collective)
    if constants.within_node is not None:
        rows += _link_rows("all-reduce within a node", constants.within_node)
    rows += _link_rows("messages", constants.messages)
    rows.append({"name": "parameter bytes", "value": constants.parameter_bytes})
    rows += [{"name": "warning", "value": words} for words in constants.warnings]
    return rows


def constants_data(constants: Constants) -> dict[str, Any]:
    """Returns the measured constants as nested dictionaries, to print as JSON."""
    return asdict(constants)


def _row(what: str, figure: Figure) -> dict[str, Any]:
    return {"name": what, "value": figure.value, "low": figure.low, "high": figure.high}


def _link_rows(name: str, link: Link) -> list[dict[str, Any]]:
    per_byte = link.seconds_per_byte
    rates = {"low": 1 / max(per_byte.high, 1e-15), "high": 1 / max(per_byte.low, 1e-15)}
    return [
        _row(f"{name}: latency seconds", link.latency),
        {"name": f"{name}: bytes per second", "value": link.bytes_per_second, **rates},
        {"name": f"{name}: largest relative error of the predicted time", "value": link.misfit},
    ]
