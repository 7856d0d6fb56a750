"""The checks of a device: the runner by tiny checks, and all of them for real on the CPU."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from typer import Exit

from benchmarks import device_check
from benchmarks.device_checks import runner
from benchmarks.device_checks.findings import Findings
from benchmarks.device_checks.runner import Check, run_check, run_checks

ROOT = Path(__file__).resolve().parents[2]
ON_THE_MACHINE = {"torch", "numpy", "scipy", "scikit-learn"}
#: A check's process starts in well under this, also on a busy machine.
AMPLE_SECONDS = 60.0


def stub(name: str, seconds: float = AMPLE_SECONDS) -> Check:
    return Check(name=name, function=f"tests.benchmarks.device_stubs:{name}", seconds=seconds)


def result_of(name: str, limit_seconds: float = AMPLE_SECONDS) -> dict[str, Any]:
    return run_check(stub(name), device="cpu", limit_seconds=limit_seconds)


def is_alive(process: int) -> bool:
    try:
        # A zombie has ended as well.
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_check_within_its_limits_passes() -> None:
    result = result_of("passes")
    assert result["status"] == "passed"
    assert result["error"] is None
    assert result["figures"] == {"answer": 42.0}
    assert result["limits"] == {"answer": ">= 40 and <= 43"}


def test_a_figure_beyond_its_limit_fails_and_the_others_are_still_reported() -> None:
    result = result_of("beyond_its_limit")
    assert result["status"] == "failed"
    assert "ratio is 1.5, allowed is <= 1.03" in result["error"]
    assert result["figures"] == {"ratio": 1.5, "healthy": True}


def test_a_check_that_raises_is_recorded_with_its_error() -> None:
    result = result_of("raises")
    assert result["status"] == "failed"
    assert "RuntimeError: a kernel went astray" in result["error"]
    assert result["figures"] == {"seen": 1}


def test_a_check_that_crashes_is_recorded_with_its_last_words() -> None:
    result = result_of("dies")
    assert result["status"] == "failed"
    assert "exit code -6" in result["error"]
    assert "about to die" in result["error"]
    assert result["figures"] == {"seen": 1}


def test_a_check_that_cannot_run_here_is_skipped_with_its_reason() -> None:
    result = result_of("skips")
    assert (result["status"], result["error"]) == ("skipped", "transformers is not installed")


@pytest.mark.slow
def test_a_check_that_hangs_is_killed_with_all_it_started() -> None:
    # Long enough to start, also on a busy machine; the stub itself never ends.
    result = result_of("hangs", limit_seconds=15.0)
    assert result["status"] == "timed_out"
    assert "killed after 15 s" in result["error"]
    deadline = time.monotonic() + 10
    while is_alive(result["figures"]["child"]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(result["figures"]["child"])


def test_results_are_written_as_they_come(tmp_path: Path) -> None:
    output = tmp_path / "new" / "results.json"
    heard: list[list[str]] = []

    def listen(words: str) -> None:
        heard.append([check["status"] for check in json.loads(output.read_bytes())["checks"]])

    passed = run_checks(
        [stub("passes"), stub("raises"), stub("passes")],
        device="cpu",
        output=output,
        total_seconds=3 * AMPLE_SECONDS,
        facts={"device": "cpu"},
        listen=listen,
    )
    assert not passed
    assert heard[0] == ["passed"]
    assert heard[-1] == ["passed", "failed", "passed"]
    content = json.loads(output.read_bytes())
    assert content["device"] == "cpu"
    assert content["total_seconds"] > 0
    assert not list(output.parent.glob("*.partial"))


def test_what_remains_is_skipped_once_the_total_time_is_used_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    def fake(check: Check, *, device: str, limit_seconds: float) -> dict[str, Any]:
        limits.append(limit_seconds)
        now[0] += 40.0
        return {"name": check.name, "status": "passed", "seconds": 40.0, "error": None}

    now = [0.0]
    monkeypatch.setattr(runner, "run_check", fake)
    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    checks = [stub("passes", seconds=50.0)] * 4
    output = tmp_path / "results.json"
    assert not run_checks(checks, device="cpu", output=output, total_seconds=75.0, facts={})
    found = json.loads(output.read_bytes())["checks"]
    assert limits == [50.0, 35.0]
    assert [check["status"] for check in found] == ["passed", "passed", "skipped", "skipped"]
    assert found[-1]["error"] == "no time left"


@pytest.mark.parametrize(("name", "code"), [("passes", 0), ("raises", 1), ("skips", 1)])
def test_the_exit_code_is_0_only_if_all_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    monkeypatch.setattr(device_check, "CHECKS", (stub(name),))
    monkeypatch.setattr(device_check, "machine_facts", lambda device: {"device": device})
    try:
        device_check.main(device="cpu", output=tmp_path / "results.json", only=None, seconds=AMPLE_SECONDS)
        ended = 0
    except Exit as exit_:
        ended = exit_.exit_code
    assert ended == code


def test_a_number_that_is_none_never_lies_within_limits() -> None:
    found = Findings(device="cpu", folder=Path())
    found.require("ratio", float("nan"), at_most=2.0)
    assert found.failures
    assert json.dumps(found.found(), allow_nan=False)


def runtime_needs(name: str, found: set[str]) -> set[str]:
    """Names of what a distribution needs, and of what that needs in turn, but for what the machine has."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        needed = canonicalize_name(requirement.name)
        is_wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if is_wanted and needed not in found | ON_THE_MACHINE:
            found.add(needed)
            runtime_needs(needed, found)
    return found


def test_the_script_fetches_all_that_paceline_needs() -> None:
    script = (ROOT / "benchmarks" / "device_check.sh").read_text()
    listed = re.search(r"^packages='([^']*)'", script, re.MULTILINE)
    assert listed is not None
    names = listed[1].split()
    needed = runtime_needs("paceline", set())
    assert needed <= {canonicalize_name(name) for name in names}
    pinned = [line.partition("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    assert {name.lower() for name in names} <= set(pinned)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_all_checks_pass_on_the_cpu(tmp_path: Path) -> None:
    output = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks.device_check", "--device", "cpu", "--output", str(output)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    content = json.loads(output.read_bytes())
    assert content["is_cpu"]
    assert [check["name"] for check in content["checks"]] == [check.name for check in device_check.CHECKS]
    for check in content["checks"]:
        if check["name"] == "own_script" and check["status"] == "skipped":
            # The only one that needs what `.[dev]` does not bring.
            assert check["error"] in ("transformers is not installed", "accelerate is not installed")
            continue
        assert check["status"] == "passed", f"{check['name']}: {check['error']}"
    assert ended.returncode == (0 if all(c["status"] == "passed" for c in content["checks"]) else 1)
