"""What the launchers' tests run on ranks."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.launchers import RankContext

Payload = Mapping[str, Any]


def join(context: RankContext) -> None:
    import torch.distributed as dist

    dist.init_process_group(
        "gloo", init_method=context.init_method, rank=context.rank, world_size=context.num_ranks
    )


def sum_of_ranks(context: RankContext, payload: Payload) -> dict[str, Any]:
    """Adds the ranks up; leaves the process group open, as careless code does."""
    import torch
    import torch.distributed as dist

    join(context)
    total = torch.tensor([float(context.rank + 1)])
    dist.all_reduce(total)
    return {
        "sum": total.item(),
        "local_rank": context.local_rank,
        "process": os.getpid(),
        "secret": context.secret,
        "shown": repr(context),
    }


def describe(context: RankContext, payload: Payload) -> dict[str, Any]:
    import torch

    return {
        "process": os.getpid(),
        "threads": torch.get_num_threads(),
        "openmp": os.environ["OMP_NUM_THREADS"],
        "variable": os.environ.get("PACELINE_TEST_VARIABLE"),
        "folder": str(Path.cwd()),
        "import_path": sys.path,
        "tuner": sys.modules["tuner"].__file__,
        "torch": torch.__file__,
    }


def count(context: RankContext, payload: Payload) -> int:
    for number in range(payload["messages"]):
        context.send({"number": number, "text": "x" * payload.get("length", 0)})
    return payload["messages"]


def echo(context: RankContext, payload: Payload) -> Any:
    return payload["value"]


def write(context: RankContext, payload: Payload) -> None:
    print(f"printed by rank {context.rank}")
    print(f"warned by rank {context.rank}", file=sys.stderr)
    subprocess.run(["echo", f"said by a child of rank {context.rank}"], check=True)


def rank_one_raises(context: RankContext, payload: Payload) -> None:
    """Rank 1 raises while the others wait for it; its `finally` lets their errors come first."""
    import torch
    import torch.distributed as dist

    join(context)
    dist.barrier()
    try:
        if context.rank == 1:
            print("rank 1 is about to raise")
            raise ArithmeticError("the loss of rank 1 is not a number")
        dist.all_reduce(torch.ones(1))
    finally:
        dist.destroy_process_group()
        time.sleep(0.3 if context.rank == 1 else 0.0)


def rank_one_is_killed(context: RankContext, payload: Payload) -> None:
    import torch
    import torch.distributed as dist

    join(context)
    dist.barrier()
    if context.rank == 1:
        print("rank 1 takes too much")
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))


def rank_one_waits(context: RankContext, payload: Payload) -> int:
    """Rank 1 returns only once a file appears; the others at once."""
    if context.rank == 1:
        while not Path(payload["until"]).exists():
            time.sleep(0.01)
    return context.rank


def leave(context: RankContext, payload: Payload) -> None:
    """Rank 0 ends its process without a word."""
    if context.rank == 0:
        os._exit(payload["exit_code"])


def leave_by_signal(context: RankContext, payload: Payload) -> int:
    """Rank 0 is killed."""
    if context.rank == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return context.rank


def hang(context: RankContext, payload: Payload) -> None:
    """Tells its process and waits; with `frozen` rank 1 is stopped, the others wait for it in gloo."""
    child = subprocess.Popen(["sleep", "600"]) if payload.get("child") else None
    if payload.get("frozen"):
        import torch
        import torch.distributed as dist

        join(context)
        dist.barrier()
        context.send({"process": os.getpid()})
        if context.rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        dist.all_reduce(torch.ones(1))
    context.send({"process": os.getpid(), "child": child.pid if child else None})
    time.sleep(600)


def peak_bytes(context: RankContext, payload: Payload) -> int:
    """Uses some memory and tells the process's peak."""
    block = bytearray(payload["bytes"])
    del block
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
