"""Prints one line an epoch, counted from 1."""

import argparse

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--epochs", type=int, default=200)
options = parser.parse_args()

training = Training("epoch_line", batch=options.batch_size, rate=options.lr, seed=options.seed)
print(f"training for {options.epochs} epochs of {training.epoch_steps} batches", flush=True)
for epoch in range(1, options.epochs + 1):
    for _ in range(training.epoch_steps):
        training.advance()
    accuracy = training.score()
    print(f"epoch {epoch:3d}/{options.epochs}  lr {options.lr:.3g}  test accuracy {accuracy:.4f}", flush=True)
