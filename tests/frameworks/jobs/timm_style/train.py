"""A classifier whose log is that of timm's train.py, line by line."""

import argparse
import logging
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

logger = logging.getLogger("train")


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 10, generator=torch.Generator().manual_seed(0))).argmax(1)
    return TensorDataset(inputs, labels)


class AverageMeter:
    def __init__(self):
        self.val = self.sum = self.count = 0

    def update(self, val, n=1):
        self.val = val
        self.sum += val * n
        self.count += n

    @property
    def avg(self):
        return self.sum / self.count


def accuracy(output, target, topk):
    correct = output.topk(max(topk), 1).indices.eq(target[:, None])
    return [100.0 * correct[:, :k].any(1).float().mean().item() for k in topk]


def train_one_epoch(epoch, model, loader, optimizer, args):
    update_time_m, data_time_m, losses_m = AverageMeter(), AverageMeter(), AverageMeter()
    model.train()
    last_idx, start = len(loader) - 1, time.time()
    for batch_idx, (inputs, target) in enumerate(loader):
        data_time_m.update(time.time() - start)
        loss = nn.functional.cross_entropy(model(inputs), target)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses_m.update(loss.item(), len(inputs))
        update_time_m.update(time.time() - start)
        start = time.time()
        if batch_idx == last_idx or batch_idx % args.log_interval == 0:
            logger.info(
                f"Train: {epoch} [{batch_idx:>4d}/{len(loader)} "
                f"({100.0 * (batch_idx + 1) / len(loader):>3.0f}%)]  "
                f"Loss: {losses_m.val:#.3g} ({losses_m.avg:#.3g})  "
                f"Time: {update_time_m.val:.3f}s, {len(inputs) / update_time_m.val:>7.2f}/s  "
                f"({update_time_m.avg:.3f}s, {len(inputs) / update_time_m.avg:>7.2f}/s)  "
                f"LR: {args.lr:.3e}  "
                f"Data: {data_time_m.val:.3f} ({data_time_m.avg:.3f})"
            )


def validate(model, loader, args):
    batch_time_m, losses_m, top1_m, top5_m = (AverageMeter() for _ in range(4))
    model.eval()
    last_idx, end = len(loader) - 1, time.time()
    with torch.no_grad():
        for batch_idx, (inputs, target) in enumerate(loader):
            output = model(inputs)
            acc1, acc5 = accuracy(output, target, topk=(1, 5))
            losses_m.update(nn.functional.cross_entropy(output, target).item(), len(inputs))
            top1_m.update(acc1, len(inputs))
            top5_m.update(acc5, len(inputs))
            batch_time_m.update(time.time() - end)
            end = time.time()
            if batch_idx == last_idx or batch_idx % args.log_interval == 0:
                logger.info(
                    f"Test: [{batch_idx:>4d}/{last_idx}]  "
                    f"Time: {batch_time_m.val:.3f} ({batch_time_m.avg:.3f})  "
                    f"Loss: {losses_m.val:>7.3f} ({losses_m.avg:>6.3f})  "
                    f"Acc@1: {top1_m.val:>7.3f} ({top1_m.avg:>7.3f})  "
                    f"Acc@5: {top5_m.val:>7.3f} ({top5_m.avg:>7.3f})"
                )
    return top1_m.avg


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("-b", "--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--epochs", type=int, default=300)
    parser.add_argument("--output", default="output/train")
    parser.add_argument("--log-interval", type=int, default=20)
    parser.add_argument("--resume", default="")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(42)
    output = Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    model = nn.Sequential(nn.Linear(20, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    start_epoch, best_metric, best_epoch = 0, 0.0, 0
    if args.resume:
        checkpoint = torch.load(args.resume)
        model.load_state_dict(checkpoint["state_dict"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        start_epoch = checkpoint["epoch"] + 1
        logger.info(f"Loaded checkpoint '{args.resume}' (epoch {checkpoint['epoch']})")
    logger.info(f"Scheduled epochs: {args.epochs}. LR stepped per epoch.")
    train = DataLoader(rows(16_000, 1), batch_size=args.batch_size, shuffle=True, drop_last=True)
    evaluation = DataLoader(rows(2000, 2), batch_size=50)
    for epoch in range(start_epoch, args.epochs):
        train_one_epoch(epoch, model, train, optimizer, args)
        metric = validate(model, evaluation, args)
        state = {"epoch": epoch, "state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, output / "tmp.pth.tar")
        (output / "tmp.pth.tar").replace(output / "last.pth.tar")
        if metric > best_metric:
            best_metric, best_epoch = metric, epoch
        logger.info(f"Current checkpoints:\n ('{output / 'last.pth.tar'}', {metric})\n")
    logger.info(f"*** Best metric: {best_metric} (epoch {best_epoch})")


if __name__ == "__main__":
    main()
