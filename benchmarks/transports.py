"""Compare ways to pass vectors between the ranks of one host: ZeroMQ over TCP and over Unix sockets.

    python -m benchmarks.transports [--json PATH] [--rounds 7]

Part 1 times messages between two ranks: a question with its answer, both vectors of 4 kB, 400 kB and 40 MB.
Part 2 times the steps of a small network that 2 and 4 ranks train with elastic averaging and gossip. In both
parts the transports alternate in random order in the same processes, so that other load affects all of them
alike. Each line has the medians over rounds, with quartiles.

`results/transports.json` also has `shared_memory`, a transport through memory that the ranks shared, with its
own sequence locks and fences. On 2 cores that were busy with other work (load average 4 to 12) its messages
were 2 to 9 times as fast as those of Unix sockets: 400 kB there and back took 0.2 instead of 0.5 ms, 40 MB
took 8 instead of 74 ms. But a training sees seconds per step: the median over 32 trainings of the ratio of
shared memory to Unix sockets is 2.2 (from 0.8 to 4.8). That is why it was removed.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn

from tuner.strategies import Links, Share, strategy
from tuner.transport import MessageTransport, Transport
from tuner.transport.rendezvous import LOOPBACK, PrefixStore, exchange

KINDS: dict[str, Callable[..., Transport]] = {
    "zmq_tcp": partial(MessageTransport, host=LOOPBACK),
    "zmq_ipc": partial(MessageTransport, one_host=True),
}
SIZES_BYTES = (4_000, 400_000, 40_000_000)
#: Hidden units of the trained network, by the bytes of its parameters; 784 inputs and 10 outputs.
WIDTHS = {400_000: 126, 4_000_000: 1258}
STRATEGIES = ("elastic_averaging", "gossip_pull", "gossip_push", "gossip_pairs")
BATCH_SIZE_PER_RANK = 32


class Rank:
    """One rank of the comparison; all transports are open at once."""

    def __init__(self, folder: str, rank: int, num_ranks: int, rounds: int) -> None:
        torch.set_num_threads(1)
        self.store = dist.FileStore(f"{folder}/store", num_ranks)
        self.rank, self.num_ranks, self.rounds = rank, num_ranks, rounds
        self.meetings = 0
        self.rng = np.random.default_rng(7)

    def meet(self) -> None:
        """Waits for all ranks."""
        self.meetings += 1
        exchange(
            self.store, f"meeting/{self.meetings}", rank=self.rank, num_ranks=self.num_ranks, value="here"
        )
        # Until messages of the last round have arrived, and all ranks have noticed that the others came.
        time.sleep(0.05)

    def in_turn(self) -> list[str]:
        """The transports in random order, the same on all ranks."""
        return [str(kind) for kind in self.rng.permutation(list(KINDS))]

    def open(self, stack: ExitStack, name: str, num_elements: int) -> dict[str, Transport]:
        return {
            kind: stack.enter_context(
                closing(
                    make(
                        PrefixStore(f"{name}/{kind}", self.store),
                        rank=self.rank,
                        num_ranks=self.num_ranks,
                        num_elements=num_elements,
                        dtype=torch.float32,
                        secret="of the benchmark",
                    )
                )
            )
            for kind, make in KINDS.items()
        }

    def messages(self, num_bytes: int) -> dict[str, list[float]]:
        """By transport and round, seconds of a question with its answer; the others answer rank 0 in turn."""
        count = max(3, min(100, 40_000_000 // num_bytes))
        vector = torch.zeros(num_bytes // 4)
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        with ExitStack() as stack:
            transports = self.open(stack, f"messages/{num_bytes}", len(vector))
            for _ in range(self.rounds + 1):
                for kind in self.in_turn():
                    transport = transports[kind]
                    self.meet()
                    began = time.perf_counter()
                    for number in range(count):
                        self._exchange(transport, vector, number)
                    seconds[kind].append((time.perf_counter() - began) / count)
            self.meet()
        return {kind: found[1:] for kind, found in seconds.items()}

    def _exchange(self, transport: Transport, vector: Tensor, number: int) -> None:
        if self.rank == 0:
            assert transport.ask(1, vector, number)
            assert transport.reply(1, wait_seconds=60) is not None
        elif self.rank == 1:
            request = transport.next_request(wait_seconds=60)
            assert request is not None
            transport.answer(request, _fill(request.vector), number)

    def training(self, name: str, num_bytes: int, tau: int) -> dict[str, list[float]]:
        """By transport and round, seconds per step."""
        num_steps = 60 if num_bytes < 1_000_000 else 30
        seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
        model = network(WIDTHS[num_bytes])
        num_elements = sum(parameter.numel() for parameter in model.parameters())
        with ExitStack() as stack:
            transports = self.open(stack, f"training/{name}/{num_bytes}/{tau}", num_elements)
            trainings = {
                kind: Training(name, tau, transport, self.rank, self.num_ranks, WIDTHS[num_bytes])
                for kind, transport in transports.items()
            }
            for training in trainings.values():
                stack.enter_context(closing(training.strategy))
            for _ in range(self.rounds + 1):
                for kind in self.in_turn():
                    training = trainings[kind]
                    self.meet()
                    began = time.perf_counter()
                    for _ in range(num_steps):
                        training.step()
                    seconds[kind].append((time.perf_counter() - began) / num_steps)
            self.meet()
        return {kind: found[1:] for kind, found in seconds.items()}


def _fill(source: Tensor) -> Callable[[Tensor], None]:
    def fill(out: Tensor) -> None:
        out.copy_(source)

    return fill


def network(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(784, width), nn.ReLU(), nn.Linear(width, 10))


class Training:
    """A rank's replica, trained on random samples."""

    def __init__(
        self, name: str, tau: int, transport: Transport, rank: int, num_ranks: int, width: int
    ) -> None:
        torch.manual_seed(0)
        self.model = network(width)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.strategy = strategy(name, {"tau": tau})
        links = Links(
            rank=rank, num_ranks=num_ranks, transport=transport, live_ranks=lambda: range(num_ranks)
        )
        self.strategy.attach(self.model, self.optimizer, links, np.random.default_rng((7, rank)))
        self.share = Share(
            batch_size=BATCH_SIZE_PER_RANK * num_ranks, num_ranks=num_ranks, num_samples=BATCH_SIZE_PER_RANK
        )
        self.inputs = torch.randn(BATCH_SIZE_PER_RANK, 784)
        self.labels = torch.randint(10, (BATCH_SIZE_PER_RANK,))

    def step(self) -> None:
        self.strategy.before_step(self.share)
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(self.inputs), self.labels).backward()  # type: ignore[no-untyped-call]
        self.strategy.after_backward()
        self.optimizer.step()
        self.strategy.after_step()
        self.strategy.exchanges()


def work(folder: str, rank: int, num_ranks: int, rounds: int, results: Any) -> None:
    """What one process does; rank 0 reports."""
    own = Rank(folder, rank, num_ranks, rounds)
    rows = []
    if num_ranks == 2:
        for num_bytes in SIZES_BYTES:
            rows.append(
                {"what": "message", "bytes": num_bytes, "ranks": 2, "seconds": own.messages(num_bytes)}
            )
    for num_bytes in WIDTHS:
        for name in STRATEGIES:
            for tau in (1, 4):
                row = {"what": name, "tau": tau, "bytes": num_bytes, "ranks": num_ranks}
                rows.append({**row, "seconds": own.training(name, num_bytes, tau)})
    if rank == 0:
        results.put(rows)


def compared(num_ranks: int, rounds: int) -> list[dict[str, Any]]:
    """All comparisons with so many ranks."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed", "zmq"])
    results = context.Queue()
    with TemporaryDirectory() as folder:
        processes = [
            context.Process(target=work, args=(folder, rank, num_ranks, rounds, results), daemon=True)
            for rank in range(num_ranks)
        ]
        for process in processes:
            process.start()
        rows: list[dict[str, Any]] = results.get()
        for process in processes:
            process.join()
    return rows


def main(
    rounds: Annotated[int, typer.Option(help="Rounds of each comparison.")] = 9,
    json_path: Annotated[Path | None, typer.Option("--json", help="Where to write the rounds.")] = None,
) -> None:
    """Prints a line for each comparison: median milliseconds and quartiles of each transport."""
    rows = [row for num_ranks in (2, 4) for row in compared(num_ranks, rounds)]
    for row in rows:
        quartiles = {
            kind: np.quantile(found, [0.25, 0.5, 0.75]) * 1e3 for kind, found in row["seconds"].items()
        }
        words = "  ".join(f"{kind} {q[1]:8.3f} ({q[0]:.3f} to {q[2]:.3f})" for kind, q in quartiles.items())
        tau = f"tau {row['tau']}" if "tau" in row else ""
        print(f"{row['what']:<18}{tau:<6}{row['bytes']:>10} B {row['ranks']} ranks  {words}", flush=True)
    if json_path is not None:
        json_path.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    typer.run(main)
