"""Each checker of the soak runs reports a broken invariant, and each run works for some seconds."""

from __future__ import annotations

import json
import random
import signal
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from benchmarks import soak, soak_kill
from benchmarks.soak_fuzz import problems_of, shortened, time_limit
from benchmarks.soak_fuzz_databases import Databases
from benchmarks.soak_fuzz_reports import Reports
from benchmarks.soak_fuzz_target import Problem, Target
from benchmarks.soak_fuzz_targets import TARGETS, Jobs, Recordings
from benchmarks.soak_journals import Holding, Journal, check_load, shared_leases
from benchmarks.soak_kill_checks import KILLS, check_end, check_resumed
from benchmarks.soak_mutations import mutated_table, toml_text
from benchmarks.soak_processes import run_processes
from benchmarks.soak_record import SoakRecord, quantile
from benchmarks.soak_round import Snapshot
from search_spaces import Configuration
from tuner.domain.ledger import Lease, ProbeRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

CONFIGURATION = Configuration(nodes=1, batch_size=8, learning_rate=0.1, strategy="all_reduce")


def part(samples: int, *, points: int = 1, charged: float = 1.0, **facts: Any) -> Measurement:
    curve = tuple(
        CurvePoint(training_seconds=1.0, step=samples, samples=samples - points + i + 1, value=0.5)
        for i in range(points)
    )
    given = {"outcome": Outcome.PAUSED, "step": samples, "samples": samples, **facts}
    return Measurement(
        configuration=CONFIGURATION,
        purpose=Purpose.TRAINING,
        curve=curve,
        charged_seconds=charged,
        **given,
    )


def probe(*slices: Measurement, probe_id: int = 1, lease: Lease | None = None) -> ProbeRecord:
    return ProbeRecord(
        probe_id=probe_id,
        study_id=1,
        configuration=CONFIGURATION,
        purpose=Purpose.TRAINING,
        trial_number=None,
        slices=slices,
        outcome=Outcome.PAUSED,
        reason="",
        lease=lease,
        created_at=0.0,
    )


def names(problems: Iterator[Problem] | list[Problem]) -> list[str]:
    return [name for name, _ in problems]


def holding(owner: str, attempt: int, since: float, until: float) -> Holding:
    return Holding(probe_id=1, attempt=attempt, owner=owner, asked_at=since - 0.1, since=since, until=until)


def test_load_finds_nothing_where_all_is_well() -> None:
    journal = Journal(slices={1: [3, 4]}, num_predictions=2, num_trials=1)
    stored = probe(part(3, points=3), part(4, points=4))
    assert check_load([journal], [stored], 2, 1) == []


@pytest.mark.parametrize(
    ("slices", "predictions", "trials", "name"),
    [
        ((), 2, 1, "every acknowledged slice is stored once, in order"),
        ((3, 3), 2, 1, "every acknowledged slice is stored once, in order"),
        ((3, 5), 2, 1, "no slice is stored that was refused"),
        ((3,), 1, 1, "no prediction is lost"),
        ((3,), 2, 0, "no trial is lost"),
    ],
)
def test_load_reports_what_is_lost_or_doubled(
    slices: tuple[int, ...], predictions: int, trials: int, name: str
) -> None:
    journal = Journal(slices={1: [3]}, num_predictions=2, num_trials=1)
    stored = probe(*(part(step, points=step) for step in slices))
    assert name in names(check_load([journal], [stored], predictions, trials))


def test_load_reports_a_slice_without_its_points_and_an_error_of_the_user() -> None:
    journal = Journal(slices={1: [3]}, errors=["append: StorageError: is locked by another process"])
    found = names(check_load([journal], [probe(part(3, points=1))], 0, 0))
    assert found == ["no error reaches the user", "every slice is whole"]


def test_a_lease_held_by_two_is_found_and_one_after_the_other_is_not() -> None:
    def pairs(second: Holding) -> int:
        return len(
            list(shared_leases([Journal(holdings=[holding("a", 1, 1.0, 5.0)]), Journal(holdings=[second])]))
        )

    assert pairs(holding("b", 2, 2.0, 9.0)) == 1
    assert pairs(holding("b", 1, 7.0, 9.0)) == 1
    assert pairs(holding("b", 2, 5.5, 9.0)) == 0


def test_kill_accepts_a_run_that_went_on() -> None:
    before = Snapshot(probes=[probe(part(1))])
    assert list(check_resumed(before, Snapshot(probes=[probe(part(1), part(2))]))) == []


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (Snapshot(), "no slice vanishes or changes"),
        (Snapshot(probes=[probe(part(1, charged=0.5))]), "charged seconds never fall"),
        (Snapshot(probes=[probe(part(1), part(1))]), "no sample is trained twice"),
        (
            Snapshot(probes=[probe(part(1)), probe(part(1), probe_id=2)]),
            "no configuration is started twice",
        ),
        (
            Snapshot(probes=[probe(part(1))], integrity="row 1 missing"),
            "the database passes its integrity check",
        ),
    ],
)
def test_kill_reports_what_is_lost_or_paid_twice(after: Snapshot, name: str) -> None:
    assert name in names(check_resumed(Snapshot(probes=[probe(part(1))]), after))


def test_kill_reports_what_stays_after_an_end() -> None:
    clean: dict[str, Any] = {"kill": None, "leases": 0, "left": {}, "files": []}
    assert list(check_end(0, "", **clean)) == []
    assert list(check_end(130, "plan:", **{**clean, "kill": KILLS[2], "leases": 0})) == []
    assert names(check_end(1, "plan: Traceback", **clean)) == [
        "the command ends with the exit code of its end",
        "no traceback reaches the user",
    ]
    assert names(check_end(130, "plan:", **clean)) == ["the command ends with the exit code of its end"]
    assert names(check_end(0, "", **{**clean, "leases": 1})) == ["no lease is left after a clean end"]
    assert names(check_end(0, "", **{**clean, "left": {7: "python"}})) == ["no process outlives the tuner"]
    assert names(check_end(0, "", **{**clean, "files": ["torch_7_1"]})) == ["no file stays in shared memory"]


@pytest.fixture
def sigterm() -> Iterator[None]:
    """The command line sets a handler of its own, which is gone after the test."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Faulty(Target):
    """Breaks in three ways, by what it is fed."""

    name = "faulty"

    def make(self, rng: random.Random) -> bytes:
        return b"some text with an x in it"

    def problems(self, data: bytes) -> Iterator[Problem]:
        if b"hang" in data:
            time.sleep(60)
        if b"x" in data:
            raise ZeroDivisionError("by zero")
        if b"ignored" in data:
            yield "no value is ignored", {}


def test_fuzz_reports_exceptions_and_shortens_the_input(tmp_path: Path) -> None:
    target = Faulty(tmp_path)
    ((name, facts),) = problems_of(target, target.make(random.Random(0)))
    assert name == "no exception but the product's own errors"
    assert "ZeroDivisionError" in facts["at"]
    assert shortened(target, b"some text with an x in it", ("faulty", name, facts["at"])) == b"x"
    assert names(problems_of(target, b"ignored")) == ["no value is ignored"]


def test_fuzz_reports_a_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.soak_fuzz._LIMIT_SECONDS", 0.1)
    assert names(problems_of(Faulty(tmp_path), b"hang")) == ["every input is dealt with in time"]
    with time_limit(30.0):
        pass
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0


@pytest.mark.parametrize(
    ("made", "data"),
    [
        (Jobs, b'name = "x"\n'),
        (Reports, b'json:{"step": 1, "value": 0.5}\n'),
        (Recordings, b"{"),
        (Databases, b"no database"),
    ],
)
def test_inputs_that_are_dealt_with_break_nothing(
    made: type[Target], data: bytes, tmp_path: Path, sigterm: None
) -> None:
    assert made in TARGETS
    assert problems_of(made(tmp_path), data) == []


def test_a_job_that_ignores_a_value_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sigterm: None
) -> None:
    target = Jobs(tmp_path)
    monkeypatch.setattr("benchmarks.soak_fuzz_targets._same", lambda one, other: True)
    rng = random.Random(0)
    found: list[str] = []
    while not found:
        found = names(problems_of(target, target.make(rng)))
    assert found == ["no value is ignored"]


def test_mutated_tables_are_toml() -> None:
    table = {"a": {"b": [1, {"c": 2.5}], "d": "x\n"}, "e": True, "f": 3}
    assert tomllib.loads(toml_text(table)) == table
    rng = random.Random(0)
    for _ in range(200):
        tomllib.loads(toml_text(mutated_table(table, rng)[0]))


def test_a_result_names_what_reproduces_it_and_no_folder() -> None:
    record = SoakRecord(name="fuzz", seed=3, seconds=1.0, report=lambda line: None)
    record.breaks("a fact", iteration=7, stderr="at /home/me/folder/file.py(3)", input="/etc/x")
    for _ in range(30):
        record.breaks("another")
    content = record.to_dict("python -m benchmarks.soak fuzz")
    assert content["num_broken"] == 31
    assert len(content["broken"]) == 20
    assert content["broken"][0] == {
        "invariant": "a fact",
        "seed": 3,
        "iteration": 7,
        "stderr": "at .../file.py(3)",
        "input": "/etc/x",
    }
    assert {"command", "seed", "seconds", "versions", "machine", "counts", "figures"} <= content.keys()
    assert quantile([], 0.5) is None
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0


def test_a_broken_invariant_ends_the_command_with_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(soak.RUNS, soak.Run.LOAD, lambda record: record.breaks("a fact"))
    with pytest.raises(typer.Exit) as ended:
        soak.main([soak.Run.LOAD], minutes=0.01, seed=0, output=tmp_path)
    assert ended.value.exit_code == 1
    assert json.loads((tmp_path / "soak_load.json").read_text())["num_broken"] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
# The jobs of the service need minutes; test_soak_service.py has a short form.
@pytest.mark.parametrize("run", [run for run in soak.Run if run is not soak.Run.SERVICE])
def test_each_run_works_for_some_seconds(
    run: soak.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PACELINE_TEST_POSTGRES_URL", raising=False)
    monkeypatch.setattr(soak_kill, "_kills", lambda rng: [KILLS[0]])
    record = soak.soak(run, minutes=5 / 60, seed=0, output=tmp_path, report=lambda line: None)
    content = json.loads((tmp_path / f"soak_{run.value}.json").read_text())
    assert content["broken"] == []
    assert content["figures"]
    if run is soak.Run.KILL:
        assert record.counts["kills"] == 1
        assert record.counts["answers"] == 1


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_process_is_left_two_seconds_after_a_kill() -> None:
    record = SoakRecord(name="processes", seed=0, seconds=500.0, report=lambda line: None)
    run_processes(record, most_kills=10)
    assert record.counts["kills"] >= 10
    assert record.broken == []
