"""gin: a file of bindings, and more of them on the command line."""

import argparse

import gin
from pretended import Training


@gin.configurable
def train(batch_size=8, learning_rate=0.1, num_steps=100, seed=0):
    training = Training(batch_size, learning_rate, seed)
    for step in range(1, num_steps + 1):
        training.step()
        if step % 25 == 0:
            print(
                f"step {step:>6d} | loss {training.loss:.4f} | eval accuracy {training.accuracy:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gin_file", action="append", default=[], help="files of bindings")
    parser.add_argument("--gin_bindings", action="append", default=[], help="single bindings")
    args = parser.parse_args()
    gin.parse_config_files_and_bindings(args.gin_file, args.gin_bindings)
    train()
