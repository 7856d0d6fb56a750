"""Everything in a YAML file."""

import argparse
from pathlib import Path

import yaml
from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--config", required=True, help="YAML file with all settings")
config = yaml.safe_load(Path(parser.parse_args().config).read_text())
training = Training(config["train"]["batch_size"], config["optimizer"]["lr"], config["seed"])
epochs = config["train"]["epochs"]
print("train samples: 2000, validation samples: 500")
for epoch in range(1, epochs + 1):
    training.epoch()
    print(
        f"Epoch [{epoch}/{epochs}], Loss: {training.loss:.4f}, Val Acc: {100 * training.accuracy:.2f}%",
        flush=True,
    )
