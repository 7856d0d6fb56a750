"""A training that sleeps instead of computing: its speed and its accuracy are known for all settings."""

import json
import math
import pathlib
import random
import time

SIZE = 2_000
STEP_SECONDS, SAMPLE_SECONDS = 0.002, 5e-6


class Training:
    """One training; `state` survives in a file."""

    def __init__(self, batch_size, rate, seed):
        self.batch_size, self.rate, self.seed = int(batch_size), float(rate), int(seed)
        self.samples = 0
        self.steps_per_epoch = -(-SIZE // self.batch_size)

    def step(self):
        left = SIZE - self.samples % SIZE
        time.sleep(STEP_SECONDS + self.batch_size * SAMPLE_SECONDS)
        self.samples += min(self.batch_size, left)

    def epoch(self):
        while True:
            self.step()
            if self.samples % SIZE == 0:
                return

    @property
    def accuracy(self):
        noise = random.Random(f"{self.seed} {self.batch_size} {self.rate:.4g} {self.samples}").gauss(0, 0.002)
        return 0.1 + 0.85 * (1 - math.exp(-2.5 * progress(self.samples, self.batch_size, self.rate))) + noise

    @property
    def loss(self):
        return 2.3 * (1.05 - self.accuracy)

    def save(self, path):
        pathlib.Path(path).write_text(json.dumps({"samples": self.samples}))

    def load(self, path):
        self.samples = json.loads(pathlib.Path(path).read_text())["samples"]


def progress(samples, batch_size, rate):
    """How far a training is; 1 is about where the accuracy stops rising fast."""
    best = 0.4 / (1 + 64 / batch_size)
    return samples / 20_000 / (1 + batch_size / 64) / math.exp(math.log(rate / best) ** 2 / 2)


def seconds_to(target, batch_size, rate):
    """Training seconds until the accuracy reaches a target, without noise."""
    needed = -math.log(1 - (target - 0.1) / 0.85) / 2.5
    samples = needed / progress(1, batch_size, rate)
    return samples * (STEP_SECONDS / batch_size + SAMPLE_SECONDS)
