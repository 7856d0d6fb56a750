"""Prints what Keras' `fit` prints: the epoch on one line, the score at the end of another."""

import argparse

from pretended import Training

parser = argparse.ArgumentParser()
parser.add_argument("--batch_size", type=int, required=True)
parser.add_argument("--learning_rate", type=float, required=True)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

training = Training("keras_fit", batch=options.batch_size, rate=options.learning_rate, seed=options.seed)
batches, epochs = training.epoch_steps, training.recipe.max_epochs
for epoch in range(1, epochs + 1):
    print(f"Epoch {epoch}/{epochs}", flush=True)
    for _ in range(batches):
        training.advance()
    milliseconds = 1000 * training.recipe.seconds(batches, options.batch_size) / batches
    print(
        f"{batches}/{batches} [==============================] - {batches * milliseconds / 1000:.0f}s "
        f"{milliseconds:.0f}ms/step - loss: {2 / (1 + epoch):.4f} - accuracy: {epoch / (9 + epoch):.4f} - "
        f"val_loss: {3 / (2 + epoch):.4f} - val_accuracy: {training.score():.4f}",
        flush=True,
    )
