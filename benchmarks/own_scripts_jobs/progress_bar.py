"""Draws tqdm's bar on stderr, and logs a score into the same line every 25 steps."""

import argparse
import sys

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--train_batch_size", type=int, required=True)
parser.add_argument("--learning_rate", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training(
    "progress_bar", batch=options.train_batch_size, rate=options.learning_rate, seed=options.seed
)
total = training.last_step
while training.step < total:
    training.advance()
    step = training.step
    share = step / total
    bar = f"{'#' * int(10 * share):10s}"
    sys.stderr.write(f"\rtraining: {100 * share:3.0f}%|{bar}| {step}/{total} [00:07<02:11, 51.3it/s]")
    if step % training.recipe.score_steps == 0:
        sys.stderr.write(f"INFO:train:step={step} loss={2 / (1 + share):.4f} acc={training.score():.4f}\n")
    sys.stderr.flush()
