"""A classifier trained with Keras 3 on the torch backend; BackupAndRestore resumes it."""

import argparse

import keras
import numpy as np


def rows(count, seed):
    inputs = np.random.default_rng(seed).normal(size=(count, 20)).astype("float32")
    return inputs, (inputs @ np.random.default_rng(0).normal(size=(20, 4))).argmax(1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--backup-dir", default="backup")
    args = parser.parse_args()
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(64, activation="relu"), keras.layers.Dense(4)]
    )
    model.compile(
        optimizer=keras.optimizers.Adam(args.learning_rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        *rows(4000, 1),
        validation_data=rows(1000, 2),
        batch_size=args.batch_size,
        epochs=args.epochs,
        callbacks=[keras.callbacks.BackupAndRestore(args.backup_dir)],
    )


if __name__ == "__main__":
    main()
