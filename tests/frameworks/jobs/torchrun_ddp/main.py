"""A DistributedDataParallel training that prints like PyTorch's ImageNet example."""

import argparse
import time
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)
    return TensorDataset(inputs, labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--batch-size", type=int, default=64, help="of all ranks together")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--print-freq", type=int, default=20)
    parser.add_argument("--save", default="checkpoint.pth.tar")
    parser.add_argument("--resume")
    args = parser.parse_args()
    dist.init_process_group("gloo")
    rank, num_ranks = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4)))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    start_epoch = 0
    if args.resume:
        saved = torch.load(args.resume)
        start_epoch = saved["epoch"]
        model.load_state_dict(saved["state_dict"])
        optimizer.load_state_dict(saved["optimizer"])
        print(f"=> loaded checkpoint '{args.resume}' (epoch {start_epoch})")
    data = rows(8000, 1)
    sampler = DistributedSampler(data)
    train = DataLoader(data, batch_size=args.batch_size // num_ranks, sampler=sampler)
    check_inputs, check_labels = rows(1000, 2).tensors
    for epoch in range(start_epoch, args.epochs):
        sampler.set_epoch(epoch)
        end = time.time()
        for i, (inputs, labels) in enumerate(train):
            output = model(inputs)
            loss = nn.functional.cross_entropy(output, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            seconds, end = time.time() - end, time.time()
            if i % args.print_freq == 0 and rank == 0:
                acc1 = 100 * (output.argmax(1) == labels).float().mean().item()
                print(
                    f"Epoch: [{epoch}][{i + 1:3d}/{len(train)}]\tTime {seconds:6.3f} ({seconds:6.3f})\t"
                    f"Loss {loss.item():.4e} ({loss.item():.4e})\tAcc@1 {acc1:6.2f} ({acc1:6.2f})",
                    flush=True,
                )
        if rank == 0:
            state = {
                "epoch": epoch + 1,
                "state_dict": model.state_dict(),
                "optimizer": optimizer.state_dict(),
            }
            torch.save(state, f"{args.save}.partial")
            Path(f"{args.save}.partial").replace(args.save)
            with torch.no_grad():
                predictions = model.module(check_inputs).topk(2, 1).indices.eq(check_labels[:, None])
            acc1, acc2 = (100 * predictions[:, :k].any(1).float().mean().item() for k in (1, 2))
            print(f" *   Acc@1 {acc1:.3f} Acc@2 {acc2:.3f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
