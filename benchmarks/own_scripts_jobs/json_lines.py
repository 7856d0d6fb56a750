"""Writes lines of JSON with steps and a loss to $PACELINE_METRICS. Saves when it is asked to end."""

import argparse
import json
import os
import signal
from pathlib import Path

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--save", type=Path)
parser.add_argument("--resume", type=Path)
options = parser.parse_args()

step = json.loads(options.resume.read_text())["step"] if options.resume else 0
training = Training("json_lines", batch=options.batch, rate=options.lr, seed=options.seed, step=step)


def save_and_exit(*_: object) -> None:
    if options.save:
        options.save.write_text(json.dumps({"step": training.step}))
    raise SystemExit(0)


signal.signal(signal.SIGTERM, save_and_exit)
with Path(os.environ.get("PACELINE_METRICS", "metrics.jsonl")).open("a") as file:
    while training.step < training.last_step:
        training.advance()
        line = {"step": training.step, "samples": training.step * options.batch}
        if training.step % training.recipe.score_steps == 0:
            file.write(json.dumps({**line, "value": training.score()}) + "\n")
        elif training.step % 5 == 0:
            file.write(json.dumps(line) + "\n")
        file.flush()
