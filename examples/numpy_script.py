"""Softmax regression on handwritten digits, by hand: it trains, and prints how it stands after each epoch."""

import argparse

import numpy as np
from sklearn.datasets import load_digits

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--batch-size", type=int, default=50)
parser.add_argument("--epochs", type=int, default=5000)
options = parser.parse_args()

images, labels = load_digits(return_X_y=True)
order = np.random.default_rng(0).permutation(len(labels))
images, labels = images[order] / 16, labels[order]
train, check = slice(0, 1400), slice(1400, None)
weights, bias = np.zeros((64, 10)), np.zeros(10)
rng = np.random.default_rng(1)
for epoch in range(1, options.epochs + 1):
    order = rng.permutation(1400)
    for start in range(0, 1400, options.batch_size):
        batch = order[start : start + options.batch_size]
        scores = images[batch] @ weights + bias
        error = np.exp(scores - scores.max(axis=1, keepdims=True))
        error /= error.sum(axis=1, keepdims=True)
        error[np.arange(len(batch)), labels[batch]] -= 1
        weights -= options.lr * images[batch].T @ error / len(batch)
        bias -= options.lr * error.mean(axis=0)
    guesses = (images[check] @ weights + bias).argmax(axis=1)
    print(f"epoch {epoch} accuracy={(guesses == labels[check]).mean():.4f}", flush=True)
