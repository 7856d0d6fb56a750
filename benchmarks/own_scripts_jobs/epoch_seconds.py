"""Prints a table as skorch does, with the seconds of each epoch in its last column."""

import argparse
import time

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training("epoch_seconds", batch=options.batch_size, rate=options.lr, seed=options.seed)
print("  epoch    train_loss    valid_acc    valid_loss     dur")
print("-------  ------------  -----------  ------------  ------", flush=True)
for epoch in range(1, training.recipe.max_epochs + 1):
    start = time.monotonic()
    for _ in range(training.epoch_steps):
        training.advance()
    accuracy, seconds = training.score(), time.monotonic() - start
    print(
        f"{epoch:7d}  {2 / (1 + epoch):12.4f}  {accuracy:11.4f}  {3 / (2 + epoch):12.4f}  {seconds:6.4f}",
        flush=True,
    )
