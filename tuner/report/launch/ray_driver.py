"""A Python file for Ray: places one bundle a node, and runs the command on each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping

from tuner.launchers import OnePer
from tuner.report.launch.node_script import environment_lines, node_lines
from tuner.report.launch.plan import LaunchPlan, head

# Braces of the program are doubled: it is filled in by `str.format`.
_PROGRAM = '''
import os
import signal
import socket
import subprocess
import sys
import time

import ray
from ray.util.placement_group import placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

NUM_NODES = {num_nodes}
# Of one node.
RESOURCES = {resources}
# Run by /bin/sh on each node.
SCRIPT = {script}


@ray.remote
class Node:
    """Runs the script on its node."""

    def address(self):
        """Where the others find it: its address, and a port that is free there."""
        with socket.socket() as listener:
            listener.bind(("", 0))
            return ray.util.get_node_ip_address(), listener.getsockname()[1]

    def start(self, rank, address, port):
        """Starts the script in a process group of its own."""
        place = {{"PLACE_RANK": str(rank), "PLACE_ADDRESS": address, "PLACE_PORT": str(port)}}
        self.process = subprocess.Popen(
            ["/bin/sh", "-c", SCRIPT], env={{**os.environ, **place}}, start_new_session=True
        )

    def poll(self):
        """Its exit code; None while it runs."""
        return self.process.poll()

    def stop(self):
        """Ends it with all it started."""
        for signal_number, timeout in ((signal.SIGTERM, 30), (signal.SIGKILL, None)):
            try:
                os.killpg(self.process.pid, signal_number)
                self.process.wait(timeout)
            except (AttributeError, ProcessLookupError):
                return
            except subprocess.TimeoutExpired:
                continue


def main():
    """Runs until every node is done or one has failed; its exit code is then that of all."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ray.init(address="auto")
    group = placement_group([RESOURCES] * NUM_NODES, strategy="STRICT_SPREAD")
    print(f"waiting for {{NUM_NODES}} nodes with {{RESOURCES}} each", flush=True)
    ray.get(group.ready())
    nodes = [
        Node.options(
            num_cpus=RESOURCES.get("CPU", 0),
            num_gpus=RESOURCES.get("GPU", 0),
            resources={{name: count for name, count in RESOURCES.items() if name not in ("CPU", "GPU")}},
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
        ).remote()
        for rank in range(NUM_NODES)
    ]
    try:
        address, port = ray.get(nodes[0].address.remote())
        ray.get([node.start.remote(rank, address, port) for rank, node in enumerate(nodes)])
        codes = [None]
        while None in codes and not any(codes):
            time.sleep(0.5)
            codes = ray.get([node.poll.remote() for node in nodes])
    finally:
        for node in nodes:
            try:
                ray.get(node.stop.remote())
            except ray.exceptions.RayActorError:  # its node died, and the script with it
                pass
    failed = [(rank, code) for rank, code in enumerate(codes) if code]
    for rank, code in failed:
        print(f"node {{rank}} ended with {{code}}", file=sys.stderr)
    # A process that a signal ended has a negative code.
    sys.exit(failed[0][1] % 256 if failed else 0)


if __name__ == "__main__":
    main()
'''


def ray_driver(plan: LaunchPlan) -> str:
    """The file; nodes are told apart by where Ray places their bundles."""
    body = node_lines(
        plan, node_rank='"$PLACE_RANK"', main_address='"$PLACE_ADDRESS"', main_port='"$PLACE_PORT"'
    )
    program = _PROGRAM.format(
        num_nodes=1 if plan.one_per is OnePer.JOB else plan.num_nodes,
        resources=_literal(_resources(plan)),
        script=_text_literal([*environment_lines(plan), *body]),
    )
    address = shlex.quote(str(plan.settings.get("address", "http://HEAD:8265")))
    folder, file = shlex.quote(plan.working_folder), shlex.quote(plan.file_name)
    how = (
        f"Start it, from this file in {folder}, which Ray brings to the nodes:",
        f"  ray job submit --address {address} --working-dir {folder} -- python {file}",
    )
    return "\n".join(["#!/usr/bin/env python3", *head(plan, *how), program.rstrip("\n"), ""])


def _resources(plan: LaunchPlan) -> dict[str, float]:
    """What a node's bundle holds, under Ray's names."""
    settings = plan.settings
    gpus = settings.get("gpus_per_node") or (0 if plan.accelerator is None else plan.devices_per_node)
    custom = settings.get("resources", {})
    assert isinstance(custom, Mapping)
    found = {"CPU": settings.get("cpus_per_node", plan.cores_per_node), "GPU": gpus, **custom}
    return {name: count for name, count in found.items() if count}


def _literal(resources: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {count!r}" for name, count in resources.items()) + "}"


def _text_literal(lines: list[str]) -> str:
    """Lines as a Python literal."""
    parts = "".join(f"    {line + chr(10)!r}\n" for line in lines)
    return f"(\n{parts})"
