"""Incremental learning with scikit-learn's partial_fit. Options come from the environment."""

import json
import os
from pathlib import Path

import joblib
import numpy as np
from sklearn.neural_network import MLPClassifier


def rows(count, seed):
    inputs = np.random.default_rng(seed).normal(size=(count, 20))
    return inputs, (inputs @ np.random.default_rng(0).normal(size=(20, 4))).argmax(1)


def main():
    batch_size, rate = int(os.environ["BATCH_SIZE"]), float(os.environ["LEARNING_RATE"])
    model_file = Path(os.environ.get("MODEL_FILE", "model.joblib"))
    inputs, labels = rows(8000, 1)
    test_inputs, test_labels = rows(2000, 2)
    first_epoch, model = 0, MLPClassifier((64,), solver="adam", learning_rate_init=rate, random_state=0)
    if model_file.exists():
        first_epoch, model = joblib.load(model_file)
    for epoch in range(first_epoch, 100):
        order = np.random.default_rng(epoch).permutation(len(inputs))
        for batch in np.array_split(order, len(inputs) // batch_size):
            model.partial_fit(inputs[batch], labels[batch], classes=range(4))
        partial = joblib.dump((epoch + 1, model), f"{model_file}.partial")[0]
        Path(partial).replace(model_file)
        score = {"epoch": epoch + 1, "accuracy": model.score(test_inputs, test_labels)}
        with Path(os.environ.get("SCORES_FILE", "scores.jsonl")).open("a", encoding="utf-8") as file:
            file.write(json.dumps(score) + "\n")
        print(score, flush=True)


if __name__ == "__main__":
    main()
