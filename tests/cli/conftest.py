from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import cli
from tests.cli.workplace import Ended, Workplace

Command = Callable[..., Ended]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PACELINE_") and "TEST" not in name]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    monkeypatch.chdir(tmp_path)
    return Workplace(tmp_path)


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Workplace, Ended]:
    """A folder in which the tiny job was tuned, for real, and how that ended."""
    place = Workplace(tmp_path_factory.mktemp("tuned"))
    return place, place.call("run", "job.toml")


@pytest.fixture
def paceline(capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """The command in this process: quick, since torch is imported once for all tests."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Ended:
        capsys.readouterr()
        code: object = None
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as ending:
            code = ending.code
        out, err = capsys.readouterr()
        assert isinstance(code, int)
        return Ended(code=code, stdout=out, stderr=err)

    yield call
    signal.signal(signal.SIGTERM, before)
