"""Start-up time of ranks on this host: the local launcher beside the standard library's fork server.

Both preload the same modules. Each repetition starts both in new interpreters, in turn, and measures

- cold: nothing runs yet, until every rank has entered its function;
- blocked: how much of that the caller cannot use for anything else;
- warm: the modules are preloaded, and new processes are forked;
- reused: the processes of the last job take the next one (only the local launcher does that).

    python -m benchmarks.rank_startup --repeats 5
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from tuner.launchers import LocalLauncher, RankContext, RankTask
from tuner.launchers.local import PRELOAD

KINDS = ("launcher", "standard_library")
NUM_RANKS = (1, 2, 8)


def enter(_context: RankContext, _payload: Mapping[str, Any]) -> int:
    """What a rank of the local launcher runs."""
    return os.getpid()


def enter_process(connection: Connection) -> None:
    """What a rank of the standard library's fork server runs."""
    import torch

    torch.set_num_threads(1)
    connection.send_bytes(json.dumps(os.getpid()).encode())
    connection.recv_bytes()


def measure_launcher(num_ranks: int) -> dict[str, float]:
    """Seconds by name."""
    with tempfile.TemporaryDirectory() as folder, LocalLauncher() as launcher:
        task = RankTask(function="benchmarks.rank_startup:enter", payload={}, folder=Path(folder))

        def start() -> tuple[float, float]:
            began = time.perf_counter()
            handle = launcher.submit(task, num_nodes=num_ranks, devices_per_node=1)
            blocked = time.perf_counter() - began
            while not launcher.poll(handle).state.has_ended:
                time.sleep(0.001)
            return time.perf_counter() - began, blocked

        cold, blocked = start()
        reused, _ = start()
        launcher.end_idle_ranks()
        warm, _ = start()
    return {"cold": cold, "blocked": blocked, "warm": warm, "reused": reused}


def measure_standard_library(num_ranks: int) -> dict[str, float]:
    """Seconds by name."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))

    def start() -> tuple[float, float]:
        began = time.perf_counter()
        pipes = [context.Pipe() for _ in range(num_ranks)]
        ranks = [context.Process(target=enter_process, args=(theirs,)) for _, theirs in pipes]
        for rank in ranks:
            rank.start()
        blocked = time.perf_counter() - began
        for ours, _ in pipes:
            ours.recv_bytes()
        seconds = time.perf_counter() - began
        for rank in ranks:
            rank.kill()
            rank.join()
        return seconds, blocked

    cold, blocked = start()
    warm, _ = start()
    return {"cold": cold, "blocked": blocked, "warm": warm}


def main() -> None:
    """Prints the median seconds of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("KIND", "RANKS"), help="measure once, print JSON")
    arguments = parser.parse_args()
    if arguments.one:
        kind, num_ranks = arguments.one[0], int(arguments.one[1])
        measure = measure_launcher if kind == "launcher" else measure_standard_library
        print(json.dumps(measure(num_ranks)))
        return
    for num_ranks in NUM_RANKS:
        found: dict[str, dict[str, list[float]]] = {kind: {} for kind in KINDS}
        for _ in range(arguments.repeats):
            for kind in KINDS:
                command = [sys.executable, "-m", "benchmarks.rank_startup", "--one", kind, str(num_ranks)]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                for name, seconds in json.loads(output.splitlines()[-1]).items():
                    found[kind].setdefault(name, []).append(seconds)
        for kind, times in found.items():
            words = ", ".join(f"{name} {statistics.median(t):.3f} s" for name, t in times.items())
            print(f"{num_ranks} ranks, {kind}: {words}")


if __name__ == "__main__":
    main()
