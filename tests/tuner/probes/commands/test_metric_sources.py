from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pytest

from tuner.domain.metric_files import LONGEST_LINE
from tuner.job import MetricsSection
from tuner.launchers import LogFile
from tuner.launchers.log_reader import LONGEST_LINE_BYTES
from tuner.probes.commands.csv_source import CsvSource
from tuner.probes.commands.json_source import GrowingText, JsonSource
from tuner.probes.commands.metric_source import MetricSource
from tuner.probes.commands.output_source import OutputSource
from tuner.probes.commands.progress_line import LineForm, noise_statistic, read_clock, read_count, read_value


def form(**names: object) -> LineForm:
    return LineForm(metrics=MetricsSection(**names))


def read(source: MetricSource, *, has_ended: bool = False) -> list[dict[str, float]]:
    names = ("step", "samples", "epoch", "value")
    return [
        {name: number for name in names if (number := getattr(line, name)) is not None}
        for line in source.read(0.0, has_ended=has_ended)
    ]


def step(number: int, value: float | None = None) -> dict[str, float]:
    return {"step": number} | ({} if value is None else {"value": value})


def test_json_lines_come_as_they_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    source = JsonSource(form(value="eval/accuracy"), path)
    assert read(source) == []
    path.write_text('{"step": 3, "eval/accuracy": 0.5}\n{"samples": 5')
    assert read(source) == [step(3, 0.5)]
    with path.open("a") as file:
        file.write('0, "eval/accuracy": 1}\n{"epoch": 2}\n')
    assert read(source) == [{"samples": 50, "value": 1}, {"epoch": 2}]
    assert read(source, has_ended=True) == []
    assert source.warnings == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("half", "is not JSON"),
        ("[1]", "is not a JSON object"),
        ('{"loss": 1}', "reports neither a position nor a value"),
        ('{"samples": "x"}', "which is not a number"),
        ('{"samples": true}', "which is not a number"),
        ('{"samples": -1}', "allowed is 0 or more"),
        ('{"samples": NaN}', "which is not a finite number"),
        ('{"event": "noise", "samples": 1}', "a field is missing or not a number"),
    ],
)
def test_what_cannot_be_understood_is_passed_over_with_a_warning(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(text + '\n{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path)
    assert read(source) == [{"samples": 10, "value": 1}]
    (warning,) = source.warnings
    assert words in warning


def test_a_file_that_another_run_began_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path, skip=True)
    assert read(source) == []
    path.write_text(json.dumps({"samples": 20}) + "\n")
    assert read(source) == [{"samples": 20}]


def test_csv_rows_are_read_whether_the_file_grows_or_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n1,9\n")
    source = CsvSource(form(value="loss"), [str(path)])
    assert read(source) == []  # another run's
    path.write_text("step, loss\n")
    assert read(source) == []
    path.write_text("step, loss\n5,2.5\n6,")
    assert read(source) == [step(5, 2.5)]
    path.write_text("step, loss\n5,2.5\n6,2.0\n7,\n")
    assert read(source) == [step(6, 2.0), step(7)]
    path.write_text("step, loss\n5,2.5\n6,2.0\n7,\nx,1\n8,1.5")
    assert read(source, has_ended=True) == [step(8, 1.5)]
    assert "which is not a number" in source.warnings[0]


def test_a_header_that_a_resumed_script_writes_again_is_no_row(tmp_path: Path) -> None:
    path = tmp_path / "summary.csv"
    path.write_text("epoch,eval_top1\n0,10.5\n")
    source = CsvSource(form(value="eval_top1"), [str(path)])
    path.write_text(path.read_text() + "epoch,eval_top1\n1,12.5\n")
    assert [(line["epoch"], line["value"]) for line in read(source)] == [(1, 12.5)]
    assert not source.warnings


def test_rows_of_earlier_slices_that_are_written_again_are_not_new(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,value\n1,0.1\n2,0.2\n3,0.3\n")
    source = CsvSource(form(), [str(path)])
    path.write_text("step,value\n1,0.1\n2,0.2\n")
    assert read(source) == []
    path.write_text("step,value\n1,0.1\n2,0.2\n3,0.4\n")
    assert read(source) == [step(3, 0.4)]


def test_csv_files_of_a_pattern_are_read_as_they_come(tmp_path: Path) -> None:
    def write(version: int, text: str) -> None:
        (tmp_path / f"version_{version}").mkdir(exist_ok=True)
        (tmp_path / f"version_{version}" / "metrics.csv").write_text(text)

    write(0, "step,value\n1,0.1\n")
    source = CsvSource(form(), [str(tmp_path / "version_*" / "metrics.csv")])
    assert read(source) == []
    write(1, "step,value\n2,0.2\n")
    assert read(source) == [step(2, 0.2)]
    assert not source.remarks


def test_a_csv_file_whose_number_changes_is_followed_and_it_is_said(tmp_path: Path) -> None:
    for version in (0, 1):
        (tmp_path / f"version_{version}").mkdir()
    old, new = (tmp_path / f"version_{version}" / "metrics.csv" for version in (0, 1))
    old.write_text("step,value\n1,0.1\n")
    source = CsvSource(form(), [str(old)], [str(tmp_path / "version_*" / "metrics.csv")])
    assert read(source) == []
    new.write_text("step,value\n2,0.2\n")
    assert read(source) == [step(2, 0.2)]
    (remark,) = source.remarks
    assert "version_1/metrics.csv is read instead" in remark


def output(path: Path, *patterns: str, rank: int = 0, num_ranks: int = 1) -> OutputSource:
    logs = {copy: LogFile(path=path.with_suffix(f".{copy}")) for copy in range(num_ranks)}
    return OutputSource(form(), patterns, lambda: logs, rank=rank, read_every=0.0)


def write_log(path: Path, text: str, *, copy: int = 0) -> None:
    with path.with_suffix(f".{copy}").open("a") as file:
        file.write(text)


@pytest.mark.parametrize(
    "prefix", ["[rank{}]: ", "[default{}]:", "(rank={}) ", "[1,{}]<stdout>:", "12:00 [Rank {}] "]
)
@pytest.mark.parametrize("rank", [0, 2])
def test_of_several_ranks_in_one_stream_one_counts(tmp_path: Path, prefix: str, rank: int) -> None:
    log = tmp_path / "log"
    source = output(log, r"epoch (?P<epoch>\d+) acc=(?P<value>\S+)", rank=rank)
    read(source)
    for epoch in (1, 2):
        for other in (1, rank, 3):
            write_log(log, f"{prefix.format(other)}epoch {epoch} acc=0.{epoch}{other}\n")
    assert read(source) == [{"epoch": epoch, "value": float(f"0.{epoch}{rank}")} for epoch in (1, 2)]
    assert "ranks disagree" in source.disagreements[0]


def test_output_is_matched_line_by_line_behind_progress_bars(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = output(log, r"epoch (?P<epoch>\d+) accuracy=(?P<value>\S+)")
    write_log(log, "epoch 1 accuracy=0.5\n 10%\r 20%\repoch 2 accuracy=0.6\nepoch 3 acc")
    assert read(source) == [{"epoch": 1, "value": 0.5}, {"epoch": 2, "value": 0.6}]
    write_log(log, "uracy=0.7\nepoch 4 accuracy=high\n")
    assert read(source) == [{"epoch": 3, "value": 0.7}]
    assert "which is not a number" in source.warnings[0]
    write_log(log, "epoch 5 accuracy=nan")
    assert read(source) == []
    (last,) = read(source, has_ended=True)
    assert last["epoch"] == 5
    assert last["value"] != last["value"]


def test_all_matches_of_a_line_are_read_and_colours_are_not(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = output(log, r"\| (?P<step>\d+)/\d+ ", r"acc=(?P<value>\S+)")
    write_log(log, "\r 10%|# | 10/100 [0:01]\r 20%|## | 20/100 [0:02]INFO step 20: \x1b[32macc=0.5\x1b[0m\n")
    assert read(source) == [step(10), step(20, 0.5)]


def test_one_rank_counts_and_values_of_others_are_compared(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = output(log, r"step (?P<step>\d+) acc=(?P<value>\S+)", num_ranks=2)
    write_log(log, "step 1 acc=0.5\n")
    write_log(log, "step 1 acc=0.4\n", copy=1)
    assert read(source) == [step(1, 0.5)]
    (remark,) = source.disagreements
    assert "rank 0 prints 0.5 where rank 1 prints 0.4" in remark


def test_another_rank_that_alone_prints_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = output(log, r"step (?P<step>\d+) acc=(?P<value>\S+)", num_ranks=2)
    write_log(log, "step 1 acc=0.5\nstep 2 acc=0.6\nstep 3 acc=0.7\n", copy=1)
    assert read(source) == []
    (remark,) = source.remarks
    assert "workload.metrics.rank = 1" in remark


def test_lines_that_look_like_scores_are_kept_as_examples(tmp_path: Path) -> None:
    log = tmp_path / "log"
    source = output(log, r"step (?P<step>\d+) acc=(?P<value>\S+)")
    write_log(log, "starting\nepoch 1: val_accuracy 0.5\nepoch 2: val_accuracy 0.6\nlr 0.1\n")
    assert read(source) == []
    assert list(source.unmatched.values()) == ["'epoch 1: val_accuracy 0.5'"]


@pytest.mark.parametrize(
    ("text", "value", "is_percent"),
    [
        ("0,8312", 0.8312, False),
        ("91%", 91.0, True),
        ("91,5 %", 91.5, True),
        ("\x1b[1m0.5\x1b[0m", 0.5, False),
        ("0.25,", 0.25, False),
        ("(3.5e-05)", 3.5e-05, False),
        ("1,234.5", 1234.5, False),
        ("tensor(0.75, device='cuda:0')", 0.75, False),
        ("-inf", float("-inf"), False),
        (0.5, 0.5, False),
    ],
)
def test_values_are_read_as_people_and_programs_write_them(
    text: str | float, value: float, is_percent: bool
) -> None:
    assert read_value({"value": text}, "value") == (value, is_percent)


@pytest.mark.parametrize(
    ("text", "count"), [("12,800", 12_800), ("1_000", 1000), ("7,", 7), ("3.25", 3.25), (None, None)]
)
def test_positions_may_have_their_thousands_grouped(text: str | None, count: float | None) -> None:
    assert read_count({"samples": text}, "samples") == count


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12.5", 12.5),
        ("12s", 12.0),
        ("1:02:03", 3723.0),
        ("02:03.5", 123.5),
        ("1h 2m 3s", 3723.0),
        ("350ms", 0.35),
        ("2026-01-02T00:00:10+00:00", 1767312010.0),
        ("soon", None),
        (None, None),
    ],
)
def test_clocks_are_read_in_any_of_their_forms(text: str | None, seconds: float | None) -> None:
    assert read_clock({"seconds": text}, "seconds") == seconds


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
    with pytest.raises(ValueError, match="small_batch >= large_batch"):
        noise_statistic(heard)


@pytest.mark.slow  # needs tensorboard
def test_event_files_are_read_by_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="reading event files needs the extra [tensorboard]")
    from torch.utils.tensorboard import SummaryWriter

    from tuner.probes.commands.event_files import EventFileSource

    source = EventFileSource(form(value="eval/accuracy"), tmp_path, read_every=0.0)
    assert read(source) == []
    with SummaryWriter(str(tmp_path / "run")) as writer:
        for number in (1, 2):
            writer.add_scalar("eval/accuracy", number / 4, number)
            writer.add_scalar("train/loss", 1.0, number)
        writer.flush()
        assert read(source) == [step(1, 0.25), step(2, 0.5)]
        writer.add_scalar("eval/accuracy", 0.75, 3)
    assert read(source, has_ended=True) == [step(3, 0.75)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"samples": 1' + "0" * 400 + "}", "which is too large for a number"),
        ('{"samples": 1e300}', "allowed is 0 or more"),
        ('{"step": 1e300}', "allowed is 0 or more"),
        ('{"step": -1, "samples": 5}', "has step = -1;"),
        ('{"event": "begin", "step": 1e999}', "which is not a finite number"),
        ('{"event": "begin", "samples": -5}', "has samples = -5;"),
        ('{"samples": ' + "[" * 100_000 + "}", "nested too deeply"),
    ],
)
def test_numbers_beyond_all_bounds_are_passed_over_with_a_warning(
    tmp_path: Path, line: str, words: str
) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text(line + '\n{"samples": 10, "value": 1}\n')
    source = JsonSource(form(), path)
    assert read(source) == [{"samples": 10, "value": 1}]
    (warning,) = source.warnings
    assert words in warning


def test_a_clock_of_a_script_that_is_no_finite_number_counts_as_none(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    times = ("NaN", "1e999", "1" + "0" * 400, "true", "2.5")
    rows = (f'{{"samples": {i}, "process": "a", "time": {t}}}\n' for i, t in enumerate(times))
    path.write_text("".join(rows))
    lines = JsonSource(form(), path).read(0.0, has_ended=True)
    assert [line.time for line in lines] == [None, None, None, None, 2.5]


def test_the_time_of_a_step_is_no_clock(tmp_path: Path) -> None:
    # As MMEngine writes it.
    path = tmp_path / "scalars.json"
    path.write_text('{"iter": 10, "loss": 0.5, "time": 0.016}\n{"iter": 20, "loss": 0.5, "time": 0.015}\n')
    lines = JsonSource(form(step="iter", value="loss"), path).read(0.0, has_ended=True)
    assert [(line.step, line.time) for line in lines] == [(10, None), (20, None)]


def test_a_field_that_no_csv_reader_takes_ends_the_rows_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    source = CsvSource(form(), [str(path)])
    path.write_text("step,value\n1,0.5\n2," + "9" * 200_000 + "\n3,0.7\n")
    assert read(source, has_ended=True) == [step(1, 0.5)]
    assert read(source, has_ended=True) == []
    (warning,) = source.warnings
    assert "after row 1" in warning
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


@pytest.mark.parametrize("num_characters", [0, 11, 15, 20])
def test_a_file_that_is_read_while_it_is_rewritten_gives_each_row_once(
    tmp_path: Path, num_characters: int
) -> None:
    path = tmp_path / "log.csv"
    source = CsvSource(form(), [str(path)])
    text = "step,value\n1,0.5\n2,0.6\n"
    path.write_text(text)
    assert read(source) == [step(1, 0.5), step(2, 0.6)]
    path.write_text(text[:num_characters])
    assert read(source) == []
    path.write_text(text + "3,0.7\n")
    assert read(source) == [step(3, 0.7)]


def test_a_file_that_is_rewritten_with_one_more_column_gives_each_row_once(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    source = CsvSource(form(), [str(path)])
    path.write_text("step,loss\n1,0.5\n2,0.6\n")
    assert read(source) == [step(1), step(2)]
    path.write_text("step,loss,value\n1,0.5,\n2,0.6,\n2,,0.7\n")
    assert read(source) == [step(2, 0.7)]


def test_an_unknown_source_is_refused_with_the_names_of_the_known_ones() -> None:
    with pytest.raises(ValueError, match="should be 'json', 'csv', 'tensorboard' or 'output'"):
        MetricsSection(source="yaml")


HOSTILE = {
    "value 10^400": ("1" + "0" * 400, "5", "too large for a number"),
    "step of 2^63": ("1.0", str(2**63), "allowed is 0 or more"),
    "step of 10^400": ("1.0", "1" + "0" * 400, "too large for a number"),
    "step of 5000 digits": ("1.0", "9" * 5000, ""),
    "infinite step": ("1.0", "inf", "not a finite number"),
    "no number": ("x" * 60_000, "5", "not a number"),
    "long line": ("1.0", "5" + " " * LONGEST_LINE, "longer than 1 MiB"),
}


def hostile_source(kind: str, folder: Path, value: str, number: str) -> MetricSource:
    """Writes a good line, a hostile line and a good line, and returns the source that reads them."""
    path, rows = folder / "log", [("0.25", "1"), (value, number), ("0.5", "2")]
    if kind == "json":
        path.write_text("".join(f'{{"value": {v}, "step": {s}}}\n' for v, s in rows))
        return JsonSource(form(), path)
    if kind == "csv":
        source: MetricSource = CsvSource(form(), [str(path)])
        path.write_text("value,step\n" + "".join(f"{v},{s}\n" for v, s in rows))
        return source
    path.write_text("".join(f"acc={v} step {s}\n" for v, s in rows))
    pattern = r"acc=(?P<value>\S+) step (?P<step>\S+)"
    return OutputSource(form(), [pattern], lambda: {0: LogFile(path=path)})


@pytest.mark.parametrize("kind", ["json", "csv", "output"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_line_is_skipped_with_one_short_warning(tmp_path: Path, kind: str, case: str) -> None:
    value, number, words = HOSTILE[case]
    source = hostile_source(kind, tmp_path, value, number)
    found = read(source, has_ended=True)
    if kind == "output" and case == "long line":  # printed lines are read in parts of 64 KiB
        assert found == [step(1, 0.25), step(5, 1.0), step(2, 0.5)]
        return
    assert found == [step(1, 0.25), step(2, 0.5)]
    (warning,) = source.warnings
    assert kind == "json" or words in warning
    assert len(warning) < 1_000


def test_a_line_of_100_mb_needs_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with path.open("w") as file:
        file.write('{"step": 1, "x": "')
        for _ in range(100):
            file.write("a" * 1_000_000)
        file.write('"}\n{"step": 2}\n')
    source = JsonSource(form(), path)
    tracemalloc.start()
    assert read(source) == [step(2)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * LONGEST_LINE
    (warning,) = source.warnings
    assert 'begins with \'{"step": 1, "x": "aaa' in warning
    assert "longer than 1 MiB" in warning


def test_a_clock_beyond_all_bounds_counts_as_unread() -> None:
    for text in ("9" * 400 + ":00:00", "1e300", "9" * 400, 10**400):
        assert read_clock({"seconds": text}, "seconds") is None


@pytest.mark.slow  # needs tensorboard
def test_event_files_that_cannot_be_read_are_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    from tuner.probes.commands.event_files import EventFileSource

    def fail(self: object) -> None:
        raise RuntimeError("damaged")

    monkeypatch.setattr(accumulator.EventAccumulator, "Reload", fail)
    (tmp_path / "events.out.tfevents.1").write_bytes(b"damaged")
    source = EventFileSource(form(), tmp_path, read_every=0.0)
    assert read(source) == read(source) == []
    (warning,) = source.warnings
    assert f"the event files in {tmp_path} cannot be read" in warning


def test_a_printed_line_that_is_read_in_parts_gets_one_remark(tmp_path: Path) -> None:
    log = tmp_path / "rank-0.log"
    source = OutputSource(form(), [r"loss: (?P<value>\S+)"], lambda: {0: LogFile(path=log)})
    log.write_text("€" * (LONGEST_LINE_BYTES // 4) + "\nloss: 0.5\n")
    assert read(source, has_ended=True) == [{"value": 0.5}]
    assert not source.remarks
    with log.open("a") as file:
        file.write("€" * LONGEST_LINE_BYTES + "\nloss: 0.25\n")
    assert read(source, has_ended=True) == [{"value": 0.25}]
    (remark,) = source.remarks
    assert "longer than 64 KiB" in remark
