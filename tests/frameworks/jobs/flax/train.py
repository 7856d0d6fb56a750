"""A classifier in JAX and flax that prints as flax's MNIST example does: accuracies in percent."""

import argparse
import pickle
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.train_state import TrainState


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x):
        for _ in range(2):
            x = nn.relu(nn.Dense(256)(x))
        return nn.Dense(4)(x)


def rows(count, seed):
    inputs = np.random.default_rng(seed).normal(size=(count, 20)).astype("float32")
    return inputs, (inputs @ np.random.default_rng(0).normal(size=(20, 4))).argmax(1)


def loss_and_accuracy(params, apply_fn, inputs, labels):
    logits = apply_fn({"params": params}, inputs)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
    return loss, (logits.argmax(1) == labels).mean()


@jax.jit
def train_step(state, inputs, labels):
    function = jax.value_and_grad(loss_and_accuracy, has_aux=True)
    (loss, accuracy), gradients = function(state.params, state.apply_fn, inputs, labels)
    return state.apply_gradients(grads=gradients), loss, accuracy


@jax.jit
def evaluate(state, inputs, labels):
    return loss_and_accuracy(state.params, state.apply_fn, inputs, labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path, default=Path("workdir"))
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--num_epochs", type=int, default=60)
    args = parser.parse_args()
    args.workdir.mkdir(parents=True, exist_ok=True)
    model = Classifier()
    params = model.init(jax.random.key(0), jnp.ones((1, 20)))["params"]
    state = TrainState.create(apply_fn=model.apply, params=params, tx=optax.adam(args.learning_rate))
    first_epoch, saved = 1, args.workdir / "state.pickle"
    if saved.exists():
        epoch, leaves = pickle.loads(saved.read_bytes())
        state = jax.tree.unflatten(jax.tree.structure(state), leaves)
        first_epoch = epoch + 1
    inputs, labels = rows(32_000, 1)
    test_inputs, test_labels = rows(2000, 2)
    for epoch in range(first_epoch, args.num_epochs + 1):
        order = np.random.default_rng(epoch).permutation(len(inputs))
        metrics = []
        for start in range(0, len(inputs) - args.batch_size + 1, args.batch_size):
            batch = order[start : start + args.batch_size]
            state, *values = train_step(state, inputs[batch], labels[batch])
            metrics.append(values)
        train_loss, train_accuracy = np.mean(metrics, axis=0)
        partial = saved.with_suffix(".partial")
        partial.write_bytes(pickle.dumps((epoch, jax.tree.leaves(jax.device_get(state)))))
        partial.replace(saved)
        test_loss, test_accuracy = evaluate(state, test_inputs, test_labels)
        print(
            f"epoch:{epoch:3d}, train_loss: {train_loss:.4f}, train_accuracy: {train_accuracy * 100:.2f}, "
            f"test_loss: {test_loss:.4f}, test_accuracy: {test_accuracy * 100:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
