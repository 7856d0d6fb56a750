"""Hydra: `key=value`, a dated folder for each run, and lines of the logging module."""

import logging

import hydra
from pretended import Training

log = logging.getLogger(__name__)


@hydra.main(version_base=None, config_path="conf", config_name="config")
def main(config):
    training = Training(config.data.batch_size, config.optimizer.lr, config.seed)
    for epoch in range(config.trainer.max_epochs):
        training.epoch()
        log.info("epoch %d: train/loss=%.4f", epoch, training.loss)
        log.info("epoch %d: val/acc=%.4f val/f1=%.4f", epoch, training.accuracy, training.accuracy - 0.01)


if __name__ == "__main__":
    main()
