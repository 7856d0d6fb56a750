"""Prints colors, and a score that stays below the target whatever the settings."""

import argparse

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training("plateau", batch=options.batch_size, rate=options.lr, seed=options.seed)
for epoch in range(1, training.recipe.max_epochs + 1):
    for _ in range(training.epoch_steps):
        training.advance()
    score = f"\x1b[32m{training.score():.4f}\x1b[0m"
    print(f"\x1b[1mepoch={epoch}\x1b[0m loss={2 / (1 + epoch):.3f} val_acc={score}", flush=True)
