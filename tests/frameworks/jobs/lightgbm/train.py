"""Gradient boosting with LightGBM. Each tree sees a random share of the rows."""

import argparse
from pathlib import Path

import lightgbm as lgb
import numpy as np


def rows(count, seed):
    inputs = np.random.default_rng(seed).normal(size=(count, 20))
    return inputs, inputs @ np.random.default_rng(0).normal(size=20) + np.sin(3 * inputs[:, 0]) > 0


def save_every(rounds, path):
    def callback(env):
        if (env.iteration + 1) % rounds == 0:
            env.model.save_model(f"{path}.partial")
            Path(f"{path}.partial").replace(path)

    return callback


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows-per-tree", type=int, default=4000)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=2000)
    parser.add_argument("--model", default="model.txt")
    parser.add_argument("--resume")
    args = parser.parse_args()
    train = lgb.Dataset(*rows(20_000, 1), free_raw_data=False)
    parameters = {
        "objective": "binary",
        "metric": "binary_error",
        "learning_rate": args.learning_rate,
        "bagging_fraction": args.rows_per_tree / 20_000,
        "bagging_freq": 1,
        "num_leaves": 15,
        "num_threads": 1,
        "seed": 0,
        "verbosity": -1,
    }
    lgb.train(
        parameters,
        train,
        num_boost_round=args.rounds,
        valid_sets=[train.create_valid(*rows(4000, 2))],
        init_model=args.resume,
        callbacks=[save_every(20, args.model), lgb.log_evaluation(10)],
    )


if __name__ == "__main__":
    main()
