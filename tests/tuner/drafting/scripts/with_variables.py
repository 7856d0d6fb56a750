"""Environment variables, and a bar as Keras draws it."""

import os

from pretended import Training

BATCH = int(os.environ.get("BATCH_SIZE", "32"))
RATE = float(os.getenv("LR", 0.05))
EPOCHS = int(os.environ.get("EPOCHS", 20))
training = Training(BATCH, RATE, int(os.environ.get("SEED", 0)))
for epoch in range(EPOCHS):
    print(f"Epoch {epoch + 1}/{EPOCHS}")
    for i in range(training.steps_per_epoch):
        training.step()
        if i % 20 == 0:
            count = f"{i + 1}/{training.steps_per_epoch}"
            print(f"\r{count} ━━━━━ 1s 2ms/step - accuracy: 0.5 - loss: 1.0", end="")
    print(
        f"\r{training.steps_per_epoch}/{training.steps_per_epoch} ━━━━━━━━━━ 1s 2ms/step - accuracy: "
        f"{training.accuracy + 0.02:.4f} - loss: {training.loss:.4f} - val_accuracy: "
        f"{training.accuracy:.4f} - val_loss: {1.1 * training.loss:.4f}",
        flush=True,
    )
