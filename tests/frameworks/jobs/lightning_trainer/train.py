"""A classifier trained with Lightning's Trainer; CSVLogger writes the scores."""

import argparse

import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)
    return TensorDataset(inputs, labels)


class Classifier(LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))

    def training_step(self, batch, index):
        inputs, labels = batch
        loss = nn.functional.cross_entropy(self.network(inputs), labels)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        inputs, labels = batch
        self.log("val_acc", (self.network(inputs).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", default="runs")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--max-epochs", type=int, default=60)
    parser.add_argument("--ckpt-path")
    args = parser.parse_args()
    seed_everything(0)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=args.max_epochs,
        logger=CSVLogger(args.root, name="logs"),
        callbacks=[ModelCheckpoint(dirpath=args.root, save_last=True)],
        log_every_n_steps=50,
        enable_model_summary=False,
    )
    train = DataLoader(rows(4000, 1), batch_size=args.batch_size, shuffle=True)
    trainer.fit(
        Classifier(args.lr), train, DataLoader(rows(1000, 2), batch_size=500), ckpt_path=args.ckpt_path
    )


if __name__ == "__main__":
    main()
