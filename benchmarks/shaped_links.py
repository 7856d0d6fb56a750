"""Links of known bandwidth and latency: what `calibrate` finds, and what the tuner then chooses.

    python -m benchmarks.shaped_links --json

Hosts are network namespaces of this machine (`benchmarks.host_network`): `tc tbf` sets the bandwidth of each
host's link, a switch in user space the one-way delay. The calibration is `paceline calibrate`'s own, with
`launcher = "torchrun"`. What a hop of an all-reduce takes is known from elsewhere: a bare program that calls
`torch.distributed.all_reduce` on 4 KB, run before and after, less what its bytes take. It is some two one-way
delays (gloo's receiver first says that it is ready), so that the delay itself is shown beside it, and not
held against it; nor is an all-reduce of a single number, which is no ring: there is nothing to divide.

Then one job is searched on nodes that are emulated with each `[cluster.machine]` that was found. Its network
is larger and its steps are set, those of a model that computes for longer, so that nodes are worth something
and the links alone differ. The laws' word (seconds of a batch by nodes and strategy,
`tuner.analytic.step_time_laws`) stands beside what the search recommends.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.host_network import HostNetwork, host_network, reason_against_hosts
from search_spaces import STRATEGIES
from tuner.analytic.step_time_laws import Network
from tuner.analytic.strategy_laws import batch_seconds
from tuner.calibration import Constants, Effort, Figure, Link, machine_section
from tuner.launchers import (
    CommandLauncher,
    CommandTask,
    HostNodes,
    JobState,
    OnePer,
)
from tuner.service.calibrating import calibrate_job
from tuner.service.opening import open_job

#: Ranks go before whatever else runs on this machine, so that its load shows less. (`nice` would not do:
#: Linux weighs sessions against each other first, and each rank is one.)
_FIRST = "chrt --rr 2 "
#: Longer packets are fewer: the switch in user space has two busy cores to share.
_MTU = 9000
_BARE_BYTES = 4096
_NODES = (1, 2, 4, 8)
_CHOSEN = ("all_reduce", "gossip_pull", "local_sgd")
#: What a search may choose among.
_SEARCHED = {"all_reduce": ("all_reduce",), "any": _CHOSEN}
_BATCH_SIZE = 64
_TAU = 8
#: The network that is calibrated with, and the one that is searched for.
_SMALL, _LARGE = 16, 32
#: Steps of the latter, and its parameters.
_FIXED, _PER_SAMPLE, _JITTER, _LARGE_BYTES = 0.020, 0.005, 0.1, 340_008

_JOB = """
name = "shaped-links"
[workload]
path = "tuner.workloads.digits:Digits"
parameters = {{ network = "mlp", width = {width} }}
[workload.optimizer]
name = "sgd"
momentum = 0.5
[cluster]
nodes = {nodes}
{cluster}
[goal]
metric = "accuracy"
target = 0.95
[space]
batch_size = [32, 64, 128, 256]
learning_rate = {{ low = 1e-3, high = 1.0 }}
strategy = {strategies}
[baseline]
nodes = 1
batch_size = {batch_size}
learning_rate = 0.05
"""

_BARE = """
import json, os, sys, time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
found = {}
for size in (1, 1024):
    vector, seconds = torch.zeros(size), []
    for number in range(int(sys.argv[1]) + 5):
        began = time.perf_counter()
        dist.all_reduce(vector)
        seconds.append(time.perf_counter() - began)
    found[size] = [s / 2 / (dist.get_world_size() - 1) for s in seconds[5:]]
if dist.get_rank() == 0:
    print(json.dumps(found))
dist.destroy_process_group()
"""


@dataclass(frozen=True, kw_only=True)
class Case:
    """Links as they are made.

    Args:
        megabits: Of each link, a second.
        delay_seconds: One way.
        devices: Ranks on each host.
    """

    megabits: float
    delay_seconds: float
    devices: int = 1

    @property
    def name(self) -> str:
        """For files."""
        return f"{self.megabits:g}-{self.delay_seconds:g}-{self.devices}"


@dataclass(frozen=True, kw_only=True)
class Hops:
    """Seconds of a hop, of many all-reduces.

    Args:
        vector: Of 4 KB, less what their bytes take.
        number: Of a single number.
    """

    vector: list[float]
    number: list[float]


CASES = (
    Case(megabits=200.0, delay_seconds=0.002),
    Case(megabits=200.0, delay_seconds=0.010),
    Case(megabits=40.0, delay_seconds=0.002),
    Case(megabits=40.0, delay_seconds=0.010),
)
TWO_DEVICES = Case(megabits=40.0, delay_seconds=0.010, devices=2)


def bare_hop_seconds(
    network: HostNetwork, folder: Path, *, num_nodes: int, devices: int, bytes_per_second: float = math.inf
) -> Hops:
    """What a hop of small all-reduces takes in a program that knows nothing of Paceline."""
    (folder / "bare.py").write_text(_BARE)
    launcher = CommandLauncher(HostNodes(network.hosts, _FIRST + network.connect), uses_torchrun=True)
    try:
        task = CommandTask(
            command=f"{sys.executable} bare.py 60",
            one_per=OnePer.RANK,
            environment={"OMP_NUM_THREADS": "1"},
            working_folder=folder,
            folder=folder,
        )
        handle = launcher.submit_command(task, num_nodes=num_nodes, devices_per_node=devices)
        while not (status := launcher.poll(handle)).state.has_ended:
            time.sleep(0.1)
        if status.state is not JobState.SUCCEEDED:
            raise RuntimeError(f"the bare all-reduce ended as {status.state}: {status.failures}")
        found = json.loads(launcher.logs(handle)[0].strip().splitlines()[-1])
        transferred = _BARE_BYTES / (num_nodes * devices) / bytes_per_second
        return Hops(vector=[s - transferred for s in found["1024"]], number=found["1"])
    finally:
        launcher.close()


def calibrated(network: HostNetwork, folder: Path, case: Case, effort: Effort) -> Constants:
    """What `paceline calibrate` finds over the hosts."""
    cluster = (
        f'launcher = "torchrun"\ndevices_per_node = {case.devices}\n[cluster.torchrun]\n'
        f'hosts = {json.dumps(network.hosts)}\nconnect = "{_FIRST}{network.connect}"'
    )
    path = folder / "job.toml"
    path.write_text(job_text(cluster, nodes=(1, 2)))
    return calibrate_job(open_job(path), num_nodes=2, effort=effort)


def job_text(
    cluster: str, *, nodes: Sequence[int], strategies: Sequence[str] = ("all_reduce",), width: int = _SMALL
) -> str:
    """A job file, the same but for its cluster."""
    return _JOB.format(
        nodes=list(nodes),
        cluster=cluster,
        strategies=json.dumps(list(strategies)),
        batch_size=_BATCH_SIZE,
        width=width,
    )


def measured(case: Case, effort: Effort, repeats: int, listen: Callable[[str], None]) -> dict[str, Any]:
    """One case: what is known of its links, and what each of some calibrations found."""
    loads, bare, within, found = [], list[Hops](), list[Hops](), []
    rate = case.megabits * 1e6 / 8

    def between() -> Hops:
        return bare_hop_seconds(network, folder, num_nodes=2, devices=case.devices, bytes_per_second=rate)

    with (
        host_network(2, megabits=case.megabits, latency_seconds=case.delay_seconds, mtu=_MTU) as network,
        tempfile.TemporaryDirectory() as name,
    ):
        folder = Path(name)
        for number in range(repeats):
            listen(f"{case}: {number + 1} of {repeats}")
            loads.append(os.getloadavg()[0])
            bare.append(between())
            if case.devices > 1:
                within.append(bare_hop_seconds(network, folder, num_nodes=1, devices=case.devices))
            found.append(calibrated(network, folder, case, effort))
        bare.append(between())
    hop = median(seconds for run in bare for seconds in run.vector)
    row: dict[str, Any] = {
        "megabits": case.megabits,
        "delay_seconds": case.delay_seconds,
        "devices_per_node": case.devices,
        "load": loads,
        "known_bytes_per_second": rate,
        "found_bytes_per_second": [c.collective.bytes_per_second for c in found],
        "messages_bytes_per_second": [c.messages.bytes_per_second for c in found],
        "bare_hop_seconds": hop,
        "bare_hop_seconds_by_run": [median(run.vector) for run in bare],
        "bare_hop_of_a_number_seconds": median(seconds for run in bare for seconds in run.number),
        "found_latency_seconds": [c.collective.latency.value for c in found],
        "messages_latency_seconds": [c.messages.latency.value for c in found],
    }
    row["bandwidth_off"] = median(row["found_bytes_per_second"]) / rate - 1
    row["latency_off"] = median(row["found_latency_seconds"]) / hop - 1
    if within:
        row["bare_hop_within_seconds"] = median(s for run in within for s in run.vector)
        row["found_within_seconds"] = [c.within_node.latency.value for c in found if c.within_node]
        row["within_off"] = median(row["found_within_seconds"]) / row["bare_hop_within_seconds"] - 1
    return row


def cached(name: str, folder: Path | None, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a folder holds by a name, else what is measured, which is then kept there."""
    if folder is None:
        return measure()
    path = folder / f"{name}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure()))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def constants_of(row: dict[str, Any]) -> Constants:
    """The links of one case, with steps that are set."""
    return Constants(
        fixed_seconds=_one(_FIXED),
        seconds_per_sample=_one(_PER_SAMPLE),
        step_misfit=0.0,
        neighbour_slowdown=1.0,
        jitter=_one(_JITTER),
        persistent=0.5,
        overlap=None,
        collective=_link(row["found_latency_seconds"], row["found_bytes_per_second"]),
        messages=_link(row["messages_latency_seconds"], row["messages_bytes_per_second"]),
        parameter_bytes=_LARGE_BYTES,
        batch_sizes_per_rank=(8, _BATCH_SIZE),
        rank_counts=(2,),
    )


def _link(latencies: list[float], rates: list[float]) -> Link:
    per_byte = [1 / rate for rate in rates]
    return Link(
        latency=Figure(value=median(latencies), low=min(latencies), high=max(latencies)),
        seconds_per_byte=Figure(value=median(per_byte), low=min(per_byte), high=max(per_byte)),
        misfit=0.0,
    )


def _one(value: float) -> Figure:
    return Figure(value=value, low=value, high=value)


def law_seconds(constants: Constants, strategy: str, batch_size: int, tau: float) -> dict[int, float]:
    """Seconds of a batch by nodes, as the laws say."""
    nodes = np.array(_NODES, dtype=float)
    compute = constants.fixed_seconds.value + constants.seconds_per_sample.value * batch_size / nodes
    network = Network(
        num_bytes=constants.parameter_bytes,
        latency=constants.collective.latency.value,
        bytes_per_second=constants.collective.bytes_per_second,
        jitter=constants.jitter.value,
        persistent=constants.persistent,
        overlap=1.5,
        peers_wait=False,
    )
    seconds = batch_seconds(STRATEGIES[strategy], compute, nodes, np.full(len(nodes), tau), network)
    return {int(p): float(s) for p, s in zip(nodes, seconds, strict=True)}


def law_of(constants: Constants, recommended: dict[str, Any]) -> dict[str, Any]:
    """What the laws say of a recommendation's strategy and batch, by nodes."""
    configuration = recommended["configuration"]
    by_nodes = law_seconds(
        constants,
        configuration["strategy"],
        configuration["batch_size"],
        float(configuration.get("tau", 1)),
    )
    return {"law_seconds": by_nodes, "law_nodes": min(by_nodes, key=lambda nodes: by_nodes[nodes])}


def chosen(constants: Constants, strategies: Sequence[str], budget: str, seed: int) -> dict[str, Any]:
    """What a search over emulated nodes with these constants recommends."""
    with tempfile.TemporaryDirectory() as name:
        return _searched(constants, strategies, Path(name), budget, seed)


def _searched(
    constants: Constants, strategies: Sequence[str], folder: Path, budget: str, seed: int
) -> dict[str, Any]:
    path = folder / "emulated.toml"
    # The job's own [cluster] comes first in the file, and what stands at its end belongs to no section.
    text = job_text("", nodes=_NODES, strategies=strategies, width=_LARGE)
    path.write_text(
        f'seed = {seed}\n{text}\n[probe]\nkind = "emulated"\n[budget]\ntime = "{budget}"\n'
        f"{machine_section(constants)}"
    )
    words = [
        sys.executable,
        "-m",
        "cli",
        "run",
        str(path),
        "--output",
        str(folder / "out"),
        "--fresh",
    ]
    storage = f"sqlite:///{folder / 'study.db'}"
    ended = subprocess.run(
        [*words, "--storage", storage], capture_output=True, text=True, check=False, cwd=Path.cwd()
    )
    if ended.returncode != 0:
        raise RuntimeError(f"the search ended with {ended.returncode}: {ended.stderr[-2000:]}")
    choice = json.loads((folder / "out" / "recommendation.json").read_text())["choice"]
    return {"configuration": choice["configuration"], "seconds": choice["seconds"]}


def main(
    repeats: Annotated[int, typer.Option(help="Calibrations of each case.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of each calibration.")] = 7,
    budget: Annotated[str, typer.Option(help="Of each search; 0 for none.")] = "90s",
    cache: Annotated[Path | None, typer.Option(help="Folder that keeps cases that were measured.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print plain data instead of tables.")] = False,
) -> None:
    """Calibrates over shaped links, and searches with what was found."""
    reason = reason_against_hosts()
    if reason is not None:
        raise typer.BadParameter(reason)
    effort = Effort(rounds=rounds)
    # So that what was made is removed however this is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))

    def listen(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    rows = []
    for case in (*CASES, TWO_DEVICES):
        rows.append(cached(case.name, cache, partial(measured, case, effort, repeats, listen)))
        listen(json.dumps(rows[-1]))
    choices = []
    for case, row in zip(CASES, rows[: len(CASES)], strict=True):
        constants = constants_of(row)
        choice: dict[str, Any] = {
            "megabits": case.megabits,
            "delay_seconds": case.delay_seconds,
            "section": machine_section(constants).splitlines(),
            "law_seconds": {
                name: law_seconds(constants, name, _BATCH_SIZE, _TAU if name == "local_sgd" else 1)
                for name in _CHOSEN
            },
            "recommended": {},
        }
        for allowed, names in _SEARCHED.items() if budget != "0" else ():
            listen(f"{case}: searching {allowed}")
            search = partial(chosen, constants, names, budget, 0)
            found = cached(f"{case.name}-{allowed}", cache, search)
            choice["recommended"][allowed] = {**found, **law_of(constants, found)}
            listen(json.dumps(choice["recommended"][allowed]))
        choices.append(choice)
    data = {"links": rows, "choices": choices}
    print(json.dumps(data, indent=1) if as_json else "\n".join(tables(data)))


def tables(data: dict[str, Any]) -> list[str]:
    """What a person reads."""
    lines = ["Mbit/s known  found   off | delay  hop of a bare all-reduce  found   off  (ms) | load"]
    for row in data["links"]:
        found = median(row["found_bytes_per_second"]) * 8e-6
        latency = 1e3 * median(row["found_latency_seconds"])
        lines.append(
            f"{row['megabits']:12.0f} {found:6.1f} {row['bandwidth_off']:+6.1%} | "
            f"{1e3 * row['delay_seconds']:5.1f} {1e3 * row['bare_hop_seconds']:25.2f} {latency:6.2f} "
            f"{row['latency_off']:+6.1%} | {median(row['load']):.1f}"
            + (f"  ({row['devices_per_node']} ranks a host)" if row["devices_per_node"] > 1 else "")
        )
        if "within_off" in row:
            within = 1e3 * median(row["found_within_seconds"])
            known = 1e3 * row["bare_hop_within_seconds"]
            lines.append(f"{'within a host':>34} {known:25.2f} {within:6.2f} {row['within_off']:+6.1%}")
    for choice in data["choices"]:
        lines.append(f"\n{choice['megabits']:g} Mbit/s, {1e3 * choice['delay_seconds']:g} ms:")
        for name, by_nodes in choice["law_seconds"].items():
            cells = "  ".join(f"{nodes}: {1e3 * seconds:7.1f}" for nodes, seconds in by_nodes.items())
            lines.append(f"  {name:12} ms a batch of {_BATCH_SIZE} by nodes  {cells}")
        for allowed, found in choice["recommended"].items():
            words = ", ".join(f"{key} {value}" for key, value in found["configuration"].items())
            lines.append(
                f"  recommended of {allowed}: {words}; {found['seconds']['median']:.1f} s; "
                f"for these the laws say {found['law_nodes']} nodes"
            )
    return lines


if __name__ == "__main__":
    typer.run(main)
