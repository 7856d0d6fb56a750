"""Logs as Lightning's CSVLogger does: another folder version_N after each resume. Saves after each epoch."""

import argparse
import csv
import json
import signal
from pathlib import Path

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch-size", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--root-dir", type=Path, required=True)
parser.add_argument("--resume", action="store_true")
options = parser.parse_args()

last = options.root_dir / "last.json"
step = json.loads(last.read_text())["step"] if options.resume else 0
training = Training("csv_folders", batch=options.batch_size, rate=options.lr, seed=options.seed, step=step)


def save(*_: object) -> None:
    partial = last.with_suffix(".partial")
    partial.write_text(json.dumps({"step": training.step}))
    partial.replace(last)


def save_and_exit(*_: object) -> None:
    save()
    raise SystemExit(0)


signal.signal(signal.SIGTERM, save_and_exit)
logs = options.root_dir / "lightning_logs"
folder = logs / f"version_{len(list(logs.glob('version_*')))}"
folder.mkdir(parents=True)
with (folder / "metrics.csv").open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["epoch", "step", "train_loss", "val_acc"])
    while training.step < training.last_step:
        training.advance()
        epoch = (training.step - 1) // training.epoch_steps
        if training.step % 10 == 0:
            rows.writerow([epoch, training.step - 1, f"{2 / (1 + epoch):.4f}", ""])
        if training.step % training.epoch_steps == 0:
            rows.writerow([epoch, training.step - 1, "", training.score()])
            save()
        file.flush()
