"""Prints a validation loss that turns back before the target. Saves when it is asked to end."""

import argparse
import json
import signal
from pathlib import Path

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int, required=True)
parser.add_argument("--learning_rate", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--out", type=Path)
parser.add_argument("--init_from", type=Path)
options = parser.parse_args()

step = json.loads(options.init_from.read_text())["iter"] if options.init_from else 0
training = Training(
    "overfits", batch=options.batch_size, rate=options.learning_rate, seed=options.seed, step=step
)


def save_and_exit(*_: object) -> None:
    if options.out:
        options.out.write_text(json.dumps({"iter": training.step}))
    raise SystemExit(0)


signal.signal(signal.SIGTERM, save_and_exit)
while training.step < training.last_step:
    training.advance()
    if training.step % training.recipe.score_steps == 0:
        train_loss = 4 / (1 + training.step / 100)
        print(
            f"step {training.step}: train loss {train_loss:.4f}, val loss {training.score():.4f}", flush=True
        )
    elif training.step % 10 == 0:
        print(f"iter {training.step}: loss {4 / (1 + training.step / 100):.4f}", flush=True)
