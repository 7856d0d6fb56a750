from __future__ import annotations

import json
from pathlib import Path

import pytest

from tuner.job import MetricsSection
from tuner.probes.commands.metric_sources import (
    CsvSource,
    GrowingText,
    JsonSource,
    MetricSource,
    OutputSource,
)
from tuner.probes.commands.progress_line import LineForm, noise_statistic


def form(*, epoch_samples: int | None = 100, **names: object) -> LineForm:
    return LineForm(metrics=MetricsSection(**names), batch_size=10, epoch_samples=epoch_samples)


def read(source: MetricSource, *, has_ended: bool = False) -> list[tuple[int, int, float | None]]:
    return [(line.step, line.samples, line.value) for line in source.read(0.0, has_ended=has_ended)]


def test_json_lines_come_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    source = JsonSource(form(value="eval/accuracy"), path)
    assert read(source) == []
    path.write_text('{"step": 3, "eval/accuracy": 0.5}\n{"samples": 5')
    assert read(source) == [(3, 30, 0.5)]
    with path.open("a") as file:
        file.write('0, "eval/accuracy": 1}\n{"epoch": 2}\n')
    assert read(source) == [(5, 50, 1.0), (20, 200, None)]
    assert read(source, has_ended=True) == []
    assert source.warnings == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("half", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"value": 1}', "does not report how far"),
        ('{"samples": "x"}', "which is not a number"),
        ('{"samples": true}', "which is not a number"),
        ('{"samples": -1}', "allowed is 0 or more"),
        ('{"samples": NaN}', "which is not a position"),
        ('{"event": "noise", "samples": 1}', "lacks a number"),
    ],
)
def test_what_cannot_be_understood_is_passed_over_with_a_warning(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text + '\n{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path)
    assert read(source) == [(1, 10, 1.0)]
    (warning,) = source.warnings
    assert words in warning


def test_epochs_without_their_size_name_the_key(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "value": 1}\n')
    source = JsonSource(form(epoch_samples=None), path)
    assert read(source) == []
    assert "workload.epoch_samples" in source.warnings[0]


def test_a_file_that_another_run_began_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path, skip=True)
    assert read(source) == []
    path.write_text(json.dumps({"samples": 20}) + "\n")
    assert read(source) == [(2, 20, None)]


def test_csv_rows_are_read_whether_the_file_grows_or_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,9\n")
    source = CsvSource(form(value="loss"), path)
    assert read(source) == []  # another run's
    path.write_text("step, loss\n")
    assert read(source) == []
    path.write_text("step, loss\n5,2.5\n6,")
    assert read(source) == [(5, 50, 2.5)]
    path.write_text("step, loss\n5,2.5\n6,2.0\n7,\n")
    assert read(source) == [(6, 60, 2.0), (7, 70, None)]
    path.write_text("step, loss\n5,2.5\n6,2.0\n7,\nx,1\n8,1.5")
    assert read(source, has_ended=True) == [(8, 80, 1.5)]
    assert "which is not a number" in source.warnings[0]


def test_output_is_matched_line_by_line_behind_progress_bars(tmp_path: Path) -> None:
    logs = {0: "epoch 1 accuracy=0.5\n 10%\r 20%\repoch 2 accuracy=0.6\nepoch 3 acc"}
    source = OutputSource(
        form(), r"epoch (?P<epoch>\d+) accuracy=(?P<value>\S+)", lambda: logs, read_every=0.0
    )
    assert read(source) == [(10, 100, 0.5), (20, 200, 0.6)]
    logs[0] += "uracy=0.7\nepoch 4 accuracy=high\n"
    assert read(source) == [(30, 300, 0.7)]
    assert "which is not a number" in source.warnings[0]
    logs[0] += "epoch 5 accuracy=nan"
    assert read(source) == []
    ((_, samples, value),) = read(source, has_ended=True)
    assert samples == 500
    assert value != value


def test_growing_text_begins_again_where_a_file_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "text"
    text = GrowingText(path)
    path.write_text("a\nb\n")
    assert list(text.take(has_ended=False)) == ["a", "b"]
    path.write_text("c\n")
    assert list(text.take(has_ended=False)) == ["c"]


def test_noise_needs_two_sizes_of_batch() -> None:
    heard = {
        "samples": 1,
        "small_batch": 4,
        "small_squared_norm": 3,
        "large_batch": 4,
        "large_squared_norm": 2,
    }
    with pytest.raises(ValueError, match="a small batch that is smaller"):
        noise_statistic(heard)


@pytest.mark.slow  # needs tensorboard
def test_event_files_are_read_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="reading event files needs the extra [tensorboard]")
    from torch.utils.tensorboard import SummaryWriter

    from tuner.probes.commands.metric_sources import EventFileSource

    source = EventFileSource(form(value="eval/accuracy"), tmp_path, read_every=0.0)
    assert read(source) == []
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for step in (1, 2):
            writer.add_scalar("eval/accuracy", step / 4, step)
            writer.add_scalar("train/loss", 1.0, step)
        writer.flush()
        assert read(source) == [(1, 10, 0.25), (2, 20, 0.5)]
        writer.add_scalar("eval/accuracy", 0.75, 3)
    assert read(source, has_ended=True) == [(3, 30, 0.75)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"samples": 1' + "0" * 400 + "}", "which is not a number"),
        ('{"samples": 1e300}', "allowed is 0 or more"),
        ('{"step": 1e300}', "allowed is 0 or more"),
        ('{"step": -1, "samples": 5}', "reports -1 steps"),
        ('{"event": "begin", "step": 1e999}', "not a position in a training"),
        ('{"event": "begin", "samples": -5}', "starts at samples = -5"),
        ('{"samples": ' + "[" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_numbers_beyond_all_bounds_are_passed_over_with_a_warning(
    tmp_path: Path, line: str, words: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + '\n{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path)
    assert read(source) == [(1, 10, 1.0)]
    (warning,) = source.warnings
    assert words in warning


def test_a_clock_of_a_script_that_is_no_finite_number_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    times = ("NaN", "1e999", "1" + "0" * 400, "true", "2.5")
    path.write_text("".join(f'{{"samples": {i}, "time": {t}}}\n' for i, t in enumerate(times)))
    lines = JsonSource(form(), path).read(0.0, has_ended=True)
    assert [line.time for line in lines] == [None, None, None, None, 2.5]


def test_a_field_that_no_csv_reader_takes_ends_the_rows_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    source = CsvSource(form(), path)
    path.write_text("step,value\n1,0.5\n2," + "9" * 200_000 + "\n3,0.7\n")
    assert read(source, has_ended=True) == [(1, 10, 0.5)]
    assert read(source, has_ended=True) == []
    (warning,) = source.warnings
    assert "follows line 2" in warning
    assert "not a row of CSV" in warning


@pytest.mark.parametrize(
    ("small", "small_norm", "large", "large_norm"),
    [(1e-320, 1.0, 2.0, 1e308), (1, 1e308, 2, -1e308), (3, 1, 10**400, 2)],
)
def test_gradient_noise_is_never_infinite(
    small: float, small_norm: float, large: float, large_norm: float
) -> None:
    fields = {
        "samples": 1,
        "small_batch": small,
        "small_squared_norm": small_norm,
        "large_batch": large,
        "large_squared_norm": large_norm,
    }
    with pytest.raises(ValueError, match="gradient noise"):
        noise_statistic(fields)


def test_gradient_noise_of_batches_that_differ_by_little_divides_by_no_zero() -> None:
    names = ("samples", "small_batch", "small_squared_norm", "large_batch", "large_squared_norm")
    statistic = noise_statistic(dict(zip(names, (1, 3e15, 2.0, 3e15 + 1, 1.0), strict=True)))
    assert statistic.noise == pytest.approx(9e30)
