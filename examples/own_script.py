"""An ordinary script: DistributedDataParallel on handwritten digits, that saves, resumes and reports."""

import argparse
from pathlib import Path

import torch
import torch.distributed as dist
from paceline_client import begin, report, should_stop
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

VALIDATION = 360


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True, help="samples of a step on one rank")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--samples", type=int, default=200_000)
    parser.add_argument("--save", type=Path, default=Path("own_script.pt"))
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    inputs, labels = digits()
    network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    model = DistributedDataParallel(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=options.lr, momentum=0.9)
    step, score_at = 0, 500
    if options.resume:
        saved = torch.load(options.resume, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        step, score_at = saved["step"], saved["score_at"]

    batch_size = options.batch_size * ranks
    begin(step=step, samples=step * batch_size)
    while step * batch_size < options.samples:
        # The batch depends on the step alone, so that a resumed run sees what it would have seen.
        draw = torch.Generator().manual_seed(step)
        batch = torch.randint(VALIDATION, len(labels), (batch_size,), generator=draw)
        own = batch[rank * options.batch_size : (rank + 1) * options.batch_size]
        for part in own.chunk(options.accumulate):
            loss = nn.functional.cross_entropy(model(inputs[part]), labels[part])
            (loss / options.accumulate).backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        samples = step * batch_size
        report(step=step, samples=samples)
        if samples >= score_at:
            score_at = max(int(1.15 * samples), samples + 500)
            with torch.no_grad():
                right = network(inputs[:VALIDATION]).argmax(1) == labels[:VALIDATION]
            report(step=step, samples=samples, value=float(right.float().mean()))
        if should_stop():
            break

    if rank == 0:
        # Under another name first: a kill leaves the one before.
        partial = options.save.with_suffix(".partial")
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save({**state, "step": step, "score_at": score_at}, partial)
        partial.replace(options.save)
    dist.barrier()
    dist.destroy_process_group()


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """All images with their labels, in an order of their own; the first are for validation."""
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels)[order]


if __name__ == "__main__":
    main()
