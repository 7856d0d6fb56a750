"""The benchmark of seconds a step: what it prints, that nothing leaks, and that its baseline is fair."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from benchmarks.step_placements import all_reduce_steps, placements_of, spread_evenly
from benchmarks.step_time import (
    CLUSTER,
    FIT_NODES,
    RECORDINGS,
    Timed,
    fit_product,
    main,
    measure,
    read_timed,
)
from benchmarks.step_time_pollux import PolluxSeconds, fit_pollux
from search_spaces import Configuration
from tuner.analytic.step_time_model import fit_seconds
from tuner.domain.measurement import Measurement, Outcome, Purpose, RankTiming, Spread

KEYS = {"app", "fit_nodes", "mean_error", "p90_error", "coverage_90", "interval_ratio", "pollux_mean_error"}
COLUMNS = "app,kind,num_nodes,num_replicas,placement,local_batch_size,step_seconds,sync_seconds"
TRUE = PolluxSeconds(theta=np.append(np.log([0.02, 2e-3, 0.08, 4e-3, 0.01, 2e-3]), 2.0))


def row(kind: str, counts: tuple[int, ...], batch: float, factor: float = 1.0) -> str:
    steps = all_reduce_steps(placements_of([counts]), np.array([batch]))
    seconds = factor * float(TRUE.seconds(steps)[0])
    digits = "".join(map(str, counts)) if kind == "placements" else ""
    wait = max(seconds - 0.02 - 2e-3 * batch, 1e-4)
    return f"toy,{kind},{len(counts)},{sum(counts)},{digits},{batch},{seconds},{wait}"


def table(path: Path, *, far_factor: float = 1.0) -> Path:
    near = [
        row("placements", spread_evenly(ranks, nodes), batch)
        for nodes, ranks in ((1, 1), (1, 2), (1, 4), (2, 2), (2, 5), (2, 8), (3, 3), (4, 4), (4, 16))
        for batch in (16.0, 64.0, 256.0)
    ]
    far = [
        row("scalability", spread_evenly(ranks, nodes), batch, far_factor)
        for nodes, ranks in ((6, 6), (16, 32))
        for batch in (16.0, 256.0)
    ]
    path.write_text("\n".join([COLUMNS, *near, *far]) + "\n")
    return path


def run(*arguments: str) -> tuple[int, str]:
    app = Typer()
    app.command()(main)
    ended = CliRunner().invoke(app, list(arguments))
    return ended.exit_code, ended.output


def test_json_lists_every_app_and_both_fits(tmp_path: Path) -> None:
    code, output = run("--json", "--draws", "1", "--file", str(table(tmp_path / "toy.csv")))
    assert code == 0, output
    found = json.loads(output)
    assert [(one["app"], one["fit_nodes"]) for one in found] == [("toy", nodes) for nodes in FIT_NODES]
    for one in found:
        assert set(one) >= KEYS
        assert 0 <= one["mean_error"] <= one["worst_draw_error"]
        assert 0 <= one["coverage_90"] <= 1
        assert one["num_predictions"] == 4


def test_people_get_a_table(tmp_path: Path) -> None:
    code, output = run("--draws", "1", "--file", str(table(tmp_path / "toy.csv")))
    assert code == 0, output
    assert "coverage" in output
    assert "toy" in output


def test_a_missing_file_is_named() -> None:
    code, output = run("--file", "nowhere.csv")
    assert code == 2
    assert "nowhere.csv" in output


def test_what_is_predicted_never_reaches_the_fit(tmp_path: Path) -> None:
    errors = []
    for factor in (1.0, 2.0):
        timed = read_timed(table(tmp_path / "toy.csv", far_factor=factor))
        near, far = timed["toy", "placements"], timed["toy", "scalability"]
        found = measure("toy", near, far.at(np.array([0])), fit_nodes=2, draws=1, waits=True)
        errors.append((found["mean_error"], found["interval_ratio"]))
    # The same prediction against twice the measurement.
    (first, width), (second, same_width) = errors
    assert width == same_width
    assert any(second == pytest.approx(abs((1 + sign * first) / 2 - 1)) for sign in (1, -1))


def test_probes_are_drawn_from_few_enough_nodes(tmp_path: Path) -> None:
    timed = read_timed(table(tmp_path / "toy.csv"))
    near, far = timed["toy", "placements"], timed["toy", "scalability"]
    few = near.at(np.flatnonzero(near.steps.placements.num_nodes <= 2))
    for fit_nodes, same in ((2, True), (4, False)):
        whole, part = (
            measure("toy", given, far, fit_nodes=fit_nodes, draws=1, waits=True) for given in (near, few)
        )
        assert (whole["mean_error"] == part["mean_error"]) is same


def test_pollux_finds_the_parameters_that_made_its_steps(tmp_path: Path) -> None:
    timed = read_timed(table(tmp_path / "toy.csv"))
    near, far = timed["toy", "placements"], timed["toy", "scalability"]
    found = fit_pollux(near.steps, near.step_seconds)
    assert found.seconds(far.steps) == pytest.approx(far.step_seconds, rel=1e-3)


def test_two_files_give_the_apps_of_both(tmp_path: Path) -> None:
    first, second = table(tmp_path / "toy.csv"), tmp_path / "other.csv"
    second.write_text(first.read_text().replace("toy,", "other,"))
    code, output = run("--json", "--draws", "1", "--file", str(first), "--file", str(second))
    assert code == 0, output
    assert [one["app"] for one in json.loads(output)] == ["other", "other", "toy", "toy"]


def slice_of(nodes: int, batch: float, seconds: float, wait: float) -> Measurement:
    """What a timing probe on whole nodes measures where a step takes so long."""

    def spread(value: float) -> Spread:
        return Spread(median=value, p10=value, p90=value, mean=value, std=0.0, count=40)

    ranks = nodes * CLUSTER.devices_per_node
    timing = RankTiming(
        rank=0,
        batch_size=int(batch),
        compute=spread(seconds - wait),
        sync=spread(wait),
        input=spread(0.0),
        step=spread(seconds),
        count=ranks,
    )
    what = Configuration(nodes=nodes, batch_size=int(batch) * ranks, learning_rate=0.1, strategy="all_reduce")
    return Measurement(configuration=what, purpose=Purpose.TIMING, outcome=Outcome.STOPPED, ranks=(timing,))


def test_the_benchmark_predicts_with_the_product_s_fit() -> None:
    asked = [(nodes, batch) for nodes in (1, 2, 4) for batch in (16.0, 64.0)]
    placements = placements_of([(CLUSTER.devices_per_node,) * nodes for nodes, _ in asked])
    steps = all_reduce_steps(placements, np.array([batch for _, batch in asked]))
    seconds = TRUE.seconds(steps)
    timed = Timed(steps=steps, step_seconds=seconds, wait_seconds=0.4 * seconds)
    mean, covariance = fit_product(timed, 4e7)[0].predict(steps.inputs())
    slices = [slice_of(*one, s, 0.4 * s) for one, s in zip(asked, seconds, strict=True)]
    model = fit_seconds(slices, CLUSTER, int(4e7))
    means, covariances = model.log_seconds_per_sample([m.configuration for m in slices])
    batches = np.array([m.configuration.batch_size for m in slices])
    np.testing.assert_allclose(means + np.log(batches), mean, rtol=1e-9)
    np.testing.assert_allclose(covariances, covariance, rtol=1e-6, atol=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(
    not all(path.is_file() for path in RECORDINGS), reason=f"no tables of Pollux's throughput at {RECORDINGS}"
)
@pytest.mark.parametrize("fit_nodes", FIT_NODES)
@pytest.mark.parametrize("app", ["cifar10", "deepspeech2", "imagenet", "bert"])
def test_real_steps_on_few_nodes_predict_sixteen_better_than_pollux(app: str, fit_nodes: int) -> None:
    timed = read_timed(*RECORDINGS)
    near, far = timed[app, "placements"], timed[app, "scalability"]
    found = measure(app, near, far, fit_nodes=fit_nodes, draws=4, waits=True)
    assert found["mean_error"] < (0.3 if fit_nodes == 2 else 1.0) * found["pollux_mean_error"]
    # Four draws scatter more than the twenty of the benchmark, which hold 80 to 97%.
    assert 0.7 < found["coverage_90"] < 0.99
