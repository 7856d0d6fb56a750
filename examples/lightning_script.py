"""A Lightning training on handwritten digits; one callback reports, stops and saves."""

import argparse
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from paceline_client import lightning_callback
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Digits(LightningModule):
    """A small network."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.network = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch, index):
        inputs, labels = batch
        return nn.functional.cross_entropy(self.network(inputs), labels)

    def validation_step(self, batch, index):
        inputs, labels = batch
        self.log("val_accuracy", (self.network(inputs).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.rate, momentum=0.9)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--lr", type=float, required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--resume", type=Path)
    options = parser.parse_args()
    torch.manual_seed(0)
    images, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels))
    data = TensorDataset(torch.tensor(images / 16, dtype=torch.float32)[order], torch.tensor(labels)[order])
    train, check = torch.utils.data.Subset(data, range(360, 1797)), torch.utils.data.Subset(data, range(360))
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=options.epochs,
        callbacks=[lightning_callback("val_accuracy")],
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        Digits(options.lr),
        DataLoader(train, batch_size=options.batch_size, shuffle=True, drop_last=True),
        DataLoader(check, batch_size=360),
        ckpt_path=options.resume,
    )


if __name__ == "__main__":
    main()
