"""LightningCLI with its CSV logger."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.loggers import CSVLogger
from pretended import SIZE, Training
from torch.utils.data import DataLoader, TensorDataset


class Data(LightningDataModule):
    def __init__(self, batch_size: int = 32):
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(SIZE, 1)), batch_size=self.batch_size)

    def val_dataloader(self):
        return DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=4)


class Model(LightningModule):
    def __init__(self, learning_rate: float = 0.05, width: int = 8):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.learning_rate = learning_rate
        self.training_run = None

    def training_step(self, batch, index):
        if self.training_run is None:
            size = self.trainer.datamodule.batch_size
            self.training_run = Training(size, self.learning_rate, 0)
            self.training_run.samples = SIZE * self.trainer.current_epoch
        self.training_run.step()
        return self.layer(batch[0]).sum()

    def validation_step(self, batch, index):
        if self.training_run is not None:
            self.log("val_acc", self.training_run.accuracy)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=self.learning_rate)


class Quiet(Trainer):
    def __init__(
        self, default_root_dir: str = "logs", max_epochs: int = 20, enable_progress_bar: bool = False
    ):
        super().__init__(
            accelerator="cpu",
            default_root_dir=default_root_dir,
            max_epochs=max_epochs,
            enable_progress_bar=enable_progress_bar,
            logger=CSVLogger(default_root_dir),
            log_every_n_steps=10,
        )


if __name__ == "__main__":
    LightningCLI(Model, Data, trainer_class=Quiet)
