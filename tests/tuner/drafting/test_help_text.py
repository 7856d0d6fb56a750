"""Options are read from the help of each common parser."""

from __future__ import annotations

import pytest

from tuner.drafting.help_text import is_help, options_of_help
from tuner.drafting.parameters import roles_of

ARGPARSE = """\
usage: train.py [-h] [--batch-size N] [--test-batch-size N] [--lr LR]
                [--no-accel] [--seed S]

An example

options:
  -h, --help            show this help message and exit
  -b N, --batch-size N  input batch size for training (default: 64)
  --test-batch-size N   input batch size for testing (default: 1000)
  --lr LR               learning rate (default: 1.0)
  --epochs N            number of epochs
                        to train (default: 14)
  --no-accel            disables accelerator
  --seed S              random seed (default: 1)
  --resume [PATH]       checkpoint
"""
CLICK = """\
Usage: train.py train [OPTIONS]

  Train.

Options:
  -b, --batch-size INTEGER     Batch size.  [default: 64]
  --learning-rate, --lr FLOAT  Learning rate.  [default: 1.0; x>0]
  --epochs INTEGER             [default: 14]
  --seed INTEGER
  --amp / --no-amp
  --resume PATH                Checkpoint.
  --help                       Show this message and exit.
"""
TYPER = """\

 Usage: train.py [OPTIONS]

╭─ Options ───────────────────────────────────────────────────────────────────╮
│ --batch-size  -b      INTEGER  Batch size [default: 64]                      │
│ --lr                  FLOAT    Learning rate [default: 1.0]                  │
│ --epochs              INTEGER  [default: 14]                                 │
│ --seed                INTEGER                                                │
│ --resume              PATH     A checkpoint.                                 │
│ --help                         Show this message and exit.                   │
╰──────────────────────────────────────────────────────────────────────────────╯
"""
ABSL = """\
Example of flags.
flags:

train.py:
  --batch_size: Batch size.
    (default: '64')
    (an integer)
  --epochs: Epochs.
    (default: '14')
    (an integer)
  --[no]half: Use half precision.
    (default: 'false')
  --lr: Learning rate.
    (default: '1.0')
    (a non-negative number)
  --resume: Checkpoint.
  --seed: Seed.
    (default: '1')
    (an integer)

Try --helpfull to get a list of all flags.
"""
FIRE = """\
INFO: Showing help with the command 'train.py -- --help'.

NAME
    train.py - Trains.

SYNOPSIS
    train.py <flags>

FLAGS
    -b, --batch_size=BATCH_SIZE
        Default: 64
        samples of a step
    -l, --lr=LR
        Default: 1.0
    -e, --epochs=EPOCHS
        Default: 14
    -s, --seed=SEED
        Default: 1
    -r, --resume=RESUME
        Type: Optional[]
        Default: None
"""
JSONARGPARSE = """\
usage: main.py [options] fit [-h] [-c CONFIG] [--trainer CONFIG]

options:
  -h, --help            Show this help message and exit.
  -c, --config CONFIG   Path to a configuration file in json or yaml format.
  --seed_everything SEED_EVERYTHING
                        Set to an int to run seed_everything (type: Union[bool, int], default: True)

Customize every aspect of training via flags:
  --trainer.max_epochs MAX_EPOCHS
                        (type: Optional[int], default: 14)
  --model.learning_rate LEARNING_RATE
                        (type: float, default: 1.0)
  --data.batch_size BATCH_SIZE
                        (type: int, default: 64)
  --ckpt_path CKPT_PATH
                        (type: Optional[str], default: null)
"""
HYDRA = """\
train is powered by Hydra.

== Configuration groups ==
Compose your configuration from those groups (group=option)


== Config ==
Override anything in the config (foo.bar=value)

seed: 1
data:
  batch_size: 64
  val_batch_size: 500
optimizer:
  lr: 1.0
  min_lr: 0.01
trainer:
  max_epochs: 14
  resume: null


Powered by Hydra (https://hydra.cc)
Use --hydra-help to view Hydra specific help
"""


@pytest.mark.parametrize(
    ("text", "batch", "rate", "epochs", "seed", "resume"),
    [
        (ARGPARSE, "--batch-size", "--lr", "--epochs", "--seed", "--resume"),
        (CLICK, "--batch-size", "--learning-rate", "--epochs", "--seed", "--resume"),
        (TYPER, "--batch-size", "--lr", "--epochs", "--seed", "--resume"),
        (ABSL, "--batch_size", "--lr", "--epochs", "--seed", "--resume"),
        (FIRE, "--batch_size", "--lr", "--epochs", "--seed", "--resume"),
        (
            JSONARGPARSE,
            "--data.batch_size",
            "--model.learning_rate",
            "--trainer.max_epochs",
            "--seed_everything",
            "--ckpt_path",
        ),
        (HYDRA, "data.batch_size", "optimizer.lr", "trainer.max_epochs", "seed", "trainer.resume"),
    ],
    ids=["argparse", "click", "typer", "absl", "fire", "jsonargparse", "hydra"],
)
def test_roles_and_defaults_come_from_the_help(
    text: str, batch: str, rate: str, epochs: str, seed: str, resume: str
) -> None:
    assert is_help(text)
    roles = roles_of(options_of_help(text))
    names = {role: parameter.name for role, parameter in roles.items()}
    expected = {"batch_size": batch, "learning_rate": rate, "epochs": epochs, "seed": seed, "resume": resume}
    assert {role: names.get(role) for role in expected} == expected  # type: ignore[call-overload]
    assert roles["batch_size"].default == "64"
    assert float(roles["learning_rate"].default or 0) == 1.0
    assert roles["epochs"].default == "14"
    assert all(parameter.takes_value for parameter in roles.values())


def test_a_switch_takes_no_value() -> None:
    options = {option.name: option for option in options_of_help(ARGPARSE)}
    assert not options["--no-accel"].takes_value
    assert not {o.name: o for o in options_of_help(ABSL)}["--half"].takes_value
    assert options["--batch-size"].aliases == ("-b",)


def test_a_training_that_ignores_help_is_no_help() -> None:
    assert not is_help("epoch 1 loss 0.5\nepoch 2 loss 0.4\n")


@pytest.mark.parametrize(
    "text", ["", "\0" * 100, "usage:", "--" * 5_000, "== Config ==\n\t:\n- [", "  --\n" * 999]
)
def test_odd_help_gives_no_options(text: str) -> None:
    assert options_of_help(text) == []
