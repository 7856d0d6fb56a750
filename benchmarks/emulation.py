"""How fast virtual ranks are: rank-steps a second against the bare loop, and the event clock's share.

    python -m benchmarks.emulation --json

For each number of ranks and each strategy, windows of the emulation alternate with windows of the bare
loop: one replica that fetches as many samples, computes their gradient and steps, on the same thread.
Seconds are the process' own, not the wall's, so that the machine may be shared. `ratio` is a rank-step of
the emulation over one of the bare loop, the median over windows; `clock_share` is what events, messages and
mixing take by themselves, without gradients, over what a rank-step takes. All-reduce computes the batch of
all ranks at once, so that its rank-steps are cheaper than the loop's. Every row is measured in a process of
its own, whose largest memory is `peak_mib`, interpreter and data included.

    python -m benchmarks.emulation --against-real --json

holds emulated ranks against real ones instead: see `benchmarks.emulation_real`.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import resource
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import torch
import typer

from search_spaces import Configuration
from tuner.domain.cluster import VirtualCluster
from tuner.domain.data_order import SampleStream, fetch
from tuner.domain.workload import SGDSettings, Workload
from tuner.emulation import Emulation, Trained, emulation

CLUSTER = VirtualCluster(
    fixed_seconds=2e-3, seconds_per_sample=1e-4, jitter=0.1, latency=5e-5, bytes_per_second=1.25e9
)
#: Samples of one rank's step.
SHARE = 16
_STRATEGIES = "all_reduce,local_sgd,gossip_pull,gossip_push,elastic_averaging"


def workloads(*names: str) -> dict[str, Workload]:
    """Small networks on data that are there: digits, text, and clothing where it is installed.

    Args:
        names: Which of them; none says all.
    """
    from tuner.domain.errors import DataNotFoundError
    from tuner.workloads.char_lm import CharLM
    from tuner.workloads.digits import Digits
    from tuner.workloads.fashion_mnist import FashionMNIST

    made = {
        # As `examples/cluster_of_128.toml` has it.
        "digits-mlp-32": lambda: Digits(network="mlp", width=32),
        "digits-mlp": lambda: Digits(network="mlp", width=128),
        "digits-cnn": lambda: Digits(network="cnn", width=16),
        "char_lm": lambda: CharLM(),
        "fashion_mnist": lambda: FashionMNIST(width=8, depth=1),
    }
    found: dict[str, Workload] = {}
    for name, make in made.items():
        if names and name not in names:
            continue
        try:
            workload = make()
            workload.training_data()
        except DataNotFoundError:
            continue
        workload.optimizer_settings = SGDSettings(momentum=0.9, nesterov=True, weight_decay=1e-4)
        found[name] = workload
    return found


class BareLoop:
    """Forward, backward and update of one replica, with nothing around it."""

    def __init__(self, workload: Workload, model: torch.nn.Module) -> None:
        self._workload, self._model = workload, copy.deepcopy(model)
        self._data = workload.training_data()
        self._stream = SampleStream(len(self._data), 0)  # type: ignore[arg-type]
        self._model.train()
        self._optimizer = workload.optimizer(self._model.parameters(), 0.01)
        self._step = 0

    def run(self, num_steps: int) -> float:
        """Processor seconds a step."""
        began = time.process_time()
        for _ in range(num_steps):
            indices = self._stream.indices(self._step * SHARE, SHARE).tolist()
            batch = fetch(self._data, indices, torch.device("cpu"))
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._workload.loss(self._model, batch)
            torch.autograd.backward(loss)
            self._optimizer.step()
            loss.item()
            self._step += 1
        return (time.process_time() - began) / num_steps


def trained(workload: Workload, model: torch.nn.Module, strategy: str, num_ranks: int) -> Trained:
    """Ranks of `SHARE` samples each."""
    axes: dict[str, Any] = {"nodes": num_ranks, "batch_size": SHARE * num_ranks, "learning_rate": 0.01}
    return Trained(
        workload=workload,
        make_model=lambda: copy.deepcopy(model),
        data=workload.training_data(),
        configuration=Configuration({**axes, "strategy": strategy}),
        num_ranks=num_ranks,
        cluster=CLUSTER,
        seed=0,
    )


def rank_step_seconds(run: Emulation, num_steps: int) -> float:
    """Processor seconds a rank-step, over so many more."""
    before, began = run.rank_steps, time.process_time()
    while run.rank_steps < before + num_steps:
        run.advance()
    return (time.process_time() - began) / (run.rank_steps - before)


def measure(name: str, strategy: str, num_ranks: int, windows: int, window_seconds: float) -> dict[str, Any]:
    """One line of the table."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    workload = workloads(name)[name]
    model = workload.model()
    bare = BareLoop(workload, model)
    plan = trained(workload, model, strategy, num_ranks)
    run, empty = emulation(plan), emulation(replace(plan, computes=False))
    rank_step_seconds(run, num_ranks)
    step = bare.run(10)
    steps = max(num_ranks, round(window_seconds / step))
    ratios, seconds, clock = [], [], []
    for _ in range(windows):
        plain = bare.run(steps)
        own = rank_step_seconds(run, steps)
        seconds.append(own)
        ratios.append(own / plain)
        clock.append(rank_step_seconds(empty, steps) / own)
    return {
        "workload": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "strategy": strategy,
        "ranks": num_ranks,
        "rank_steps_a_second": round(1.0 / float(np.median(seconds)), 1),
        "ratio": round(float(np.median(ratios)), 3),
        "ratio_smallest": round(min(ratios), 3),
        "ratio_largest": round(max(ratios), 3),
        "clock_share": round(float(np.median(clock)), 4),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def measured_separately(*args: Any) -> dict[str, Any]:
    """`measure` in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch._dynamo", "tuner.emulation"])
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(measure, *args).result()


def line_of(row: dict[str, Any]) -> str:
    """One row in words."""
    return (
        f"{row['workload']:14} {row['parameters']:>9,} {row['strategy']:18} p={row['ranks']:<4} "
        f"{row['rank_steps_a_second']:>8.0f} rank-steps/s  {row['ratio']:.2f}x the bare loop "
        f"({row['ratio_smallest']:.2f} to {row['ratio_largest']:.2f})  "
        f"clock and mixing {row['clock_share']:.0%}  {row['peak_mib']:.0f} MiB"
    )


def _against_real(ranks: str | None, strategies: str | None, seeds: int, steps: int, as_json: bool) -> None:
    from benchmarks.emulation_real import STRATEGIES, table
    from benchmarks.emulation_real import line_of as real_line_of

    # Ended by a signal, it takes its network namespaces with it all the same.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = table(
        ranks=[int(number) for number in (ranks or "4,8").split(",")],
        strategies=strategies.split(",") if strategies else STRATEGIES,
        seeds=seeds,
        num_steps=steps,
        listen=lambda words: typer.echo(words, err=True),
    )
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print(f"{found['note']} Real, emulated (error; ! beyond its bar).")
    heading = ""
    for row in found["rows"]:
        if (words := f"{row['workload']}; disturbance: {row['disturbance']}") != heading:
            heading = words
            print(heading)
        print(real_line_of(row))
    for skipped in found["skipped"]:
        print(f"skipped: {skipped['disturbance']}: {skipped['reason']}")


def main(
    ranks: Annotated[
        str | None, typer.Option(help="Numbers of ranks; 1,8,32,128, or 4,8 against real ones.")
    ] = None,
    strategies: Annotated[
        str | None, typer.Option(help="Strategies; most of them, or all that are checked.")
    ] = None,
    names: Annotated[str | None, typer.Option("--workloads", help="Some of the workloads.")] = None,
    windows: Annotated[int, typer.Option(min=1, help="Alternations.")] = 5,
    window_seconds: Annotated[float, typer.Option(help="Length of one.")] = 1.0,
    against_real: Annotated[
        bool, typer.Option("--against-real", help="Hold emulated ranks against real ones.")
    ] = False,
    seeds: Annotated[int, typer.Option(min=1, help="Against real ranks: runs of each kind.")] = 3,
    steps: Annotated[int, typer.Option(min=20, help="Against real ranks: steps of a rank.")] = 160,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a rank-step costs, or how well emulated ranks tell what real ones do."""
    if against_real:
        _against_real(ranks, strategies, seeds, steps, as_json)
        return
    ranks, strategies = ranks or "1,8,32,128", strategies or _STRATEGIES
    chosen = names.split(",") if names is not None else []
    rows = []
    for name in workloads(*chosen):
        for num_ranks in map(int, ranks.split(",")):
            for strategy in strategies.split(","):
                row = measured_separately(name, strategy, num_ranks, windows, window_seconds)
                rows.append(row)
                typer.echo(line_of(row), err=as_json)
    if as_json:
        print("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")


if __name__ == "__main__":
    typer.run(main)
