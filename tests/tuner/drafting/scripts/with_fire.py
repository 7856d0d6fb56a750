"""Fire: the parameters of a function; scores go into a CSV file."""

import csv
import pathlib

import fire
from pretended import Training


def train(batch_size=32, lr=0.05, n_epochs=20, seed=0, log_dir="logs", verbose=False):
    """Trains.

    Args:
        batch_size: samples of a step
        lr: learning rate
        n_epochs: passes over the data
        seed: random seed
        log_dir: where the log goes
        verbose: whether to print
    """
    training = Training(batch_size, lr, seed)
    folder = pathlib.Path(log_dir)
    folder.mkdir(parents=True, exist_ok=True)
    print("started")
    with (folder / "progress.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "iteration", "train_loss", "valid_accuracy"])
        for epoch in range(1, n_epochs + 1):
            training.epoch()
            row = [epoch, epoch * training.steps_per_epoch, training.loss, training.accuracy]
            writer.writerow(row)
            file.flush()


if __name__ == "__main__":
    fire.Fire(train)
