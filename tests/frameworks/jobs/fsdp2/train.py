"""A sharded model (FSDP2) that logs and saves as torchtitan does."""

import argparse
import re
import time
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

RED, YELLOW, GREEN, PLAIN = "\033[31m", "\033[33m", "\033[32m", "\033[39m"


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    return inputs, (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)


def log(text):
    if dist.get_rank() == 0:
        print(f"[titan] {time.strftime('%Y-%m-%d %H:%M:%S')},000 - root - INFO - {text}", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--training.local-batch-size", dest="local_batch_size", type=int, default=32)
    parser.add_argument("--training.steps", dest="steps", type=int, default=6000)
    parser.add_argument("--optimizer.lr", dest="lr", type=float, default=1e-3)
    parser.add_argument("--validation.freq", dest="freq", type=int, default=50)
    parser.add_argument("--checkpoint.folder", dest="folder", type=Path, default=Path("checkpoint"))
    args = parser.parse_args()
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
    step = 0
    found = [int(re.fullmatch(r"step-(\d+)", p.parent.name)[1]) for p in args.folder.glob("step-*/.metadata")]
    if found:
        step = max(found)
        weights, state = get_state_dict(model, optimizer)
        dcp.load({"model": weights, "optimizer": state}, checkpoint_id=args.folder / f"step-{step}")
        set_state_dict(model, optimizer, model_state_dict=weights, optim_state_dict=state)
        log(f"Finished loading the checkpoint at step {step}.")
    inputs, labels = rows(20_000, 1)
    check_inputs, check_labels = rows(1000, 2)
    started = time.time()
    while step < args.steps:
        generator = torch.Generator().manual_seed(step * dist.get_world_size() + dist.get_rank())
        batch = torch.randint(len(inputs), (args.local_batch_size,), generator=generator)
        loss = nn.functional.cross_entropy(model(inputs[batch]), labels[batch])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        if step % 10 == 0:
            tps = 10 * args.local_batch_size / (time.time() - started)
            started = time.time()
            log(
                f"{RED}step: {step:2}  {GREEN}loss: {loss.item():7.4f}  {PLAIN}grad_norm:  1.0000  "
                f"memory:  0.00GiB(0.00%)  tps: {tps:,.0f}"
            )
        if step % args.freq == 0:
            weights, state = get_state_dict(model, optimizer)
            dcp.save({"model": weights, "optimizer": state}, checkpoint_id=args.folder / f"step-{step}")
            with torch.no_grad():
                loss = nn.functional.cross_entropy(model(check_inputs), check_labels)
            log(
                f"{YELLOW}validate step: {step:2}  {GREEN}loss: {loss.item():7.4f}  {PLAIN}"
                f"memory:  0.00GiB(0.00%)  tps: {tps:,.0f}"
            )
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
