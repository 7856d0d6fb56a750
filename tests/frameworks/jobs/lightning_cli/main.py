"""A classifier behind LightningCLI: every option comes from the command line or a YAML file."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningCLI
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)
    return TensorDataset(inputs, labels)


class Classifier(LightningModule):
    def __init__(self, lr: float = 1e-3, width: int = 64):
        super().__init__()
        self.save_hyperparameters()
        self.network = nn.Sequential(nn.Linear(20, width), nn.ReLU(), nn.Linear(width, 4))

    def training_step(self, batch, index):
        inputs, labels = batch
        return nn.functional.cross_entropy(self.network(inputs), labels)

    def validation_step(self, batch, index):
        inputs, labels = batch
        self.log("val_acc", (self.network(inputs).argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.hparams.lr)


class Rows(LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        return DataLoader(rows(4000, 1), batch_size=self.hparams.batch_size, shuffle=True)

    def val_dataloader(self):
        return DataLoader(rows(1000, 2), batch_size=500)


if __name__ == "__main__":
    LightningCLI(Classifier, Rows)
