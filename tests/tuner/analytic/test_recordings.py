"""The models against recordings of real runs; they lie outside the repository, and need not be there."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from tests.tuner.analytic.made_measurements import configuration, timed
from tuner.analytic.learning_curve import extrapolate
from tuner.analytic.rate_edge import RunEvidence
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.cluster import Cluster

RECORDINGS = Path(__file__).resolve().parents[4] / "shared" / "recordings"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not RECORDINGS.is_dir(), reason=f"no recordings of real runs at {RECORDINGS}"),
]

#: Bytes of the models' parameters in single precision.
PARAMETER_BYTES = {"cifar10": 45_000_000, "imagenet": 102_000_000, "deepspeech2": 160_000_000}


def rows(name: str) -> list[dict[str, str]]:
    with (RECORDINGS / name).open(newline="") as file:
        return list(csv.DictReader(file))


def step_times(app: str) -> dict[tuple[int, int], float]:
    """Median seconds a step by (nodes, batch a rank), with four devices used on every node."""
    found: dict[tuple[int, int], list[float]] = defaultdict(list)
    for row in rows("pollux-throughput.csv"):
        if row["app"] == app and int(row["num_replicas"]) == 4 * int(row["num_nodes"]):
            key = int(row["num_nodes"]), round(float(row["local_batch_size"]))
            found[key].append(float(row["step_seconds"]))
    return {key: float(np.median(values)) for key, values in found.items()}


@pytest.mark.parametrize("app", ["cifar10", "imagenet", "deepspeech2"])
def test_one_to_four_real_nodes_predict_up_to_sixteen(app: str) -> None:
    times = step_times(app)
    cluster = Cluster(node_counts=(1, 2, 3, 4), devices_per_node=4, nodes_share_host=False)
    known = {key: seconds for key, seconds in times.items() if key[0] <= 4}
    asked = {key: seconds for key, seconds in times.items() if key[0] > 4}
    assert len(known) >= 6
    assert len(asked) >= 6
    probes = [timed(configuration(n, 4 * n * b), seconds) for (n, b), seconds in known.items()]
    model = fit_seconds(probes, cluster, PARAMETER_BYTES[app])
    asks = [configuration(n, 4 * n * b) for n, b in asked]
    mean, covariance = model.log_seconds_per_sample(asks)
    steps = mean + np.log([c.batch_size for c in asks])
    error = steps - np.log(list(asked.values()))
    sd = np.sqrt(np.diag(covariance) + model.between_moments_sd**2)
    # Measured: 12% to 15% off at the median; inside for 93%, 97% and 71%.
    assert np.median(np.abs(error)) < math.log(1.35)
    assert np.mean(np.abs(error) < 1.645 * sd) > 0.65


@pytest.mark.parametrize(("app", "rises"), [("cifar10", True), ("imagenet", True), ("deepspeech2", False)])
def test_half_of_real_curves_shows_where_they_cross(app: str, rises: bool) -> None:
    """Within the first third of each run: a later division of the rate would break the curve's form."""
    found: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for row in rows("pollux-convergence.csv"):
        if row["app"] == app:
            batch = int(row["batch_size"])
            found[batch].append((float(row["iteration"]) * batch, float(row["metric"])))
    errors = []
    for points in found.values():
        samples, values = np.array(sorted(points)).T
        sign = 1.0 if rises else -1.0
        start, best = values[0], sign * np.max(sign * values[: len(values) // 3])
        target = start + 0.9 * (best - start)
        progress = (values - start) / (target - start)
        crossing = int(np.argmax(progress >= 1.0))
        early = samples <= samples[crossing] / 2
        if early.sum() < 4:
            continue
        reported = extrapolate(
            [RunEvidence(configuration=configuration(), samples=samples[early], progress=progress[early])]
        )
        errors.append(float(reported.median[0] - np.log(samples[crossing])))
    # Measured: a factor of 1.2, 1.6 and 1.2 at the median.
    assert len(errors) >= 2
    assert np.median(np.abs(errors)) < math.log(2.0)
