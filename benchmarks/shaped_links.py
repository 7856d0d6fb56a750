"""Links of known bandwidth and latency: what `calibrate` finds, and what the tuner then chooses.

    python -m benchmarks.shaped_links --json

Hosts are network namespaces of this machine (`benchmarks.host_network`): `tc tbf` sets the bandwidth of each
host's link, a switch in user space the one-way delay. The calibration is `paceline calibrate`'s own, with
`launcher = "torchrun"`. What a hop of an all-reduce takes is known from elsewhere: a bare program that calls
`torch.distributed.all_reduce` on 4 KB, run before and after, less what its bytes take. It is some two one-way
delays (gloo's receiver first says that it is ready), so that the delay itself is shown beside it, and not
held against it; nor is an all-reduce of a single number, which is no ring: there is nothing to divide.

Then one job is searched on nodes that are emulated with each `[cluster.machine]` that was found. Steps are
those of the case in the middle, so that the links alone differ. The laws' word (seconds of a batch by nodes
and strategy, `tuner.analytic.strategy_seconds`) stands beside what the search recommends.
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
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from benchmarks.host_network import HostNetwork, host_network, reason_against_hosts
from search_spaces import STRATEGIES
from tuner.analytic.laws import compute_seconds
from tuner.analytic.strategy_seconds import Network, batch_seconds
from tuner.calibration import Constants, Effort, machine_section
from tuner.launchers import (
    CommandLauncher,
    CommandTask,
    ElasticAgent,
    HostNodes,
    JobState,
    OnePer,
)
from tuner.service.calibrating import calibrate_job
from tuner.service.opening import open_job

#: Ranks go before whatever else runs on this machine, so that its load shows less. (`nice` would not do:
#: Linux weighs sessions against each other first, and each rank is one.)
_FIRST = "chrt --rr 1 "
#: Longer packets are fewer: the switch in user space has two busy cores to share.
_MTU = 9000
_BARE_BYTES = 4096
_NODES = (1, 2, 4, 8)
_CHOSEN = ("all_reduce", "gossip_pull", "local_sgd")
_BATCH_SIZE = 64
_TAU = 8

_JOB = """
name = "shaped-links"
[workload]
path = "tuner.workloads.digits:Digits"
parameters = {{ network = "mlp", width = 128 }}
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
    launcher = CommandLauncher(HostNodes(network.hosts, _FIRST + network.connect), agent=ElasticAgent())
    try:
        task = CommandTask(
            command=f"{sys.executable} bare.py 60",
            one_per=OnePer.RANK,
            environment={"OMP_NUM_THREADS": "1"},
            working_folder=folder,
            folder=folder,
        )
        handle = launcher.submit(task, num_nodes=num_nodes, devices_per_node=devices)
        while not (status := launcher.poll(handle)).state.has_ended:
            time.sleep(0.1)
        if status.state is not JobState.SUCCEEDED:
            raise RuntimeError(f"the bare all-reduce ended as {status.state}: {status.failures}")
        found = json.loads(launcher.logs(handle)[0].strip().splitlines()[-1])
        carried = _BARE_BYTES / (num_nodes * devices) / bytes_per_second
        return Hops(vector=[s - carried for s in found["1024"]], number=found["1"])
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


def job_text(cluster: str, *, nodes: Sequence[int], strategies: Sequence[str] = ("all_reduce",)) -> str:
    """A job file, the same but for its cluster."""
    return _JOB.format(
        nodes=list(nodes), cluster=cluster, strategies=json.dumps(list(strategies)), batch_size=_BATCH_SIZE
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
    middle = sorted(found, key=lambda c: c.collective.bytes_per_second)[len(found) // 2]
    return {"row": row, "constants": middle}


def law_rows(constants: Constants) -> dict[str, dict[int, float]]:
    """Seconds of a batch by strategy and nodes, as the laws say."""
    nodes = np.array(_NODES, dtype=float)
    compute = compute_seconds(
        _BATCH_SIZE / nodes,
        fixed=constants.fixed_seconds.value,
        per_sample=constants.seconds_per_sample.value,
    )
    network = Network(
        num_bytes=constants.parameter_bytes,
        latency=constants.collective.latency.value,
        bytes_per_second=constants.collective.bytes_per_second,
        jitter=constants.jitter.value,
        persistent=constants.persistent,
        overlap=1.5,
        peers_wait=False,
    )
    found = {}
    for name in _CHOSEN:
        tau = np.full(len(nodes), _TAU if name == "local_sgd" else 1, dtype=float)
        seconds = batch_seconds(STRATEGIES[name], compute, nodes, tau, network)
        found[name] = {int(p): float(s) for p, s in zip(nodes, seconds, strict=True)}
    return found


def chosen(constants: Constants, folder: Path, budget: str, seed: int) -> dict[str, Any]:
    """What a search over emulated nodes with these constants recommends."""
    path = folder / "emulated.toml"
    # The job's own [cluster] comes first in the file, and what stands at its end belongs to no section.
    text = job_text("", nodes=_NODES, strategies=_CHOSEN)
    path.write_text(
        f'seed = {seed}\n{text}\n[probe]\nkind = "emulated"\n[budget]\ntime = "{budget}"\n'
        f"{machine_section(constants)}"
    )
    words = [
        *_FIRST.split(),
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
    told = json.loads((folder / "out" / "recommendation.json").read_text())
    return dict(told)


def with_middle_steps(all_constants: Sequence[Constants]) -> list[Constants]:
    """The constants with the steps of one case, so that links alone differ."""
    middle = sorted(all_constants, key=lambda c: c.seconds_per_sample.value)[len(all_constants) // 2]
    return [
        replace(middle, collective=c.collective, messages=c.messages, overlap=None, warnings=())
        for c in all_constants
    ]


def main(
    repeats: Annotated[int, typer.Option(help="Calibrations of each case.")] = 3,
    rounds: Annotated[int, typer.Option(help="Rounds of each calibration.")] = 7,
    budget: Annotated[str, typer.Option(help="Of each search; 0 for none.")] = "90s",
    seeds: Annotated[int, typer.Option(help="Searches of each case.")] = 1,
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

    results = []
    for case in (*CASES, TWO_DEVICES):
        results.append(measured(case, effort, repeats, listen))
        listen(json.dumps(results[-1]["row"]))
    rows = [result["row"] for result in results]
    choices = []
    for case, constants in zip(
        CASES, with_middle_steps([result["constants"] for result in results[: len(CASES)]]), strict=True
    ):
        choice: dict[str, Any] = {
            "megabits": case.megabits,
            "delay_seconds": case.delay_seconds,
            "section": machine_section(constants).splitlines(),
            "law_seconds": law_rows(constants),
            "recommended": [],
        }
        for seed in range(seeds if budget != "0" else 0):
            listen(f"{case}: searching, seed {seed}")
            with tempfile.TemporaryDirectory() as name:
                choice["recommended"].append(_summary(chosen(constants, Path(name), budget, seed)))
        choices.append(choice)
    data = {"links": rows, "choices": choices}
    print(json.dumps(data, indent=1) if as_json else "\n".join(tables(data)))


def _summary(recommendation: dict[str, Any]) -> dict[str, Any]:
    choice = recommendation["choice"]
    return {"configuration": choice["configuration"], "seconds": choice["seconds"]}


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
        for found in choice["recommended"]:
            lines.append(f"  recommended: {found['configuration']}")
    return lines


if __name__ == "__main__":
    typer.run(main)
