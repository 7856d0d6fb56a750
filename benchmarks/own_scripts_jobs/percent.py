"""Counts epochs from 0 and prints accuracy in percent."""

import argparse

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("-b", "--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training("percent", batch=options.batch_size, rate=options.lr, seed=options.seed)
for epoch in range(training.recipe.max_epochs):
    for _ in range(training.epoch_steps):
        training.advance()
    print(f"[Epoch {epoch}] lr={options.lr:g} | Acc@1: {100 * training.score():.2f}%", flush=True)
