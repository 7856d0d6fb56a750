"""Logs as MMEngine does: the step within the epoch, then a validation line in percent."""

import argparse
import time

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training("step_in_epoch", batch=options.batch_size, rate=options.lr, seed=options.seed)
batches = training.epoch_steps


def log(text: str) -> None:
    print(f"{time.strftime('%m/%d %H:%M:%S')} - mmengine - INFO - {text}", flush=True)


for epoch in range(1, training.recipe.max_epochs + 1):
    for step in range(1, batches + 1):
        training.advance()
        if step % 5 == 0:
            loss = 4 / (1 + epoch + step / batches)
            log(f"Epoch(train) [{epoch}][{step:3d}/{batches}]  lr: {options.lr:.4e}  loss: {loss:.4f}")
    log(f"Epoch(val) [{epoch}][8/8]    accuracy/top1: {100 * training.score():.4f}  time: 0.0004")
