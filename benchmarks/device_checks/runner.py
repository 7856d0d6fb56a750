"""Runs checks one after the other, each in a process of its own with its own time limit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.device_checks.findings import save_json
from tuner.launchers.local_nodes import kill_tree

_LAST_LINES = 30


@dataclass(frozen=True, kw_only=True)
class Check:
    """One check.

    Args:
        name: Of the check.
        function: `module:function`; called with `Findings` in a process of its own.
        seconds: After so many the process is killed, with everything that it started.
    """

    name: str
    function: str
    seconds: float


def run_checks(
    checks: Sequence[Check],
    *,
    device: str,
    output: Path,
    total_seconds: float,
    facts: dict[str, Any],
    listen: Callable[[str], None] = lambda _: None,
) -> bool:
    """Runs checks in order and rewrites the results file after each.

    A crash, a hang or a broken device context of one check does not touch the next. Where the total time is
    used up, what remains is recorded as skipped.

    Args:
        checks: The most valuable first.
        device: `cuda` or `cpu`.
        output: The results file.
        total_seconds: For all checks together.
        facts: What the results file says beside the results.
        listen: Told of each result.

    Returns:
        Whether all checks passed.
    """
    began = time.monotonic()
    results: list[dict[str, Any]] = []
    output.parent.mkdir(parents=True, exist_ok=True)
    for check in checks:
        left = total_seconds - (time.monotonic() - began)
        result = {"name": check.name, "status": "skipped", "seconds": 0.0, "error": "no time left"}
        if left > 0:
            result = run_check(check, device=device, limit_seconds=min(check.seconds, left))
        results.append(result)
        seconds = round(time.monotonic() - began, 1)
        save_json(output, {**facts, "total_seconds": seconds, "checks": results})
        listen(f"{check.name}: {result['status']}, {result['seconds']:.1f} s")
        if result["error"]:
            listen(str(result["error"]))
    return all(result["status"] == "passed" for result in results)


def run_check(check: Check, *, device: str, limit_seconds: float) -> dict[str, Any]:
    """Runs one check to its end or its time limit.

    Returns:
        `name`, `status` (`passed`, `failed`, `timed_out` or `skipped`), `seconds`, `limit_seconds`, `error`,
        `figures` and `limits`. A check that was killed keeps the figures it had by then.
    """
    with tempfile.TemporaryDirectory(prefix="device-check-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        answer, log = folder / "answer.json", folder / "log.txt"
        (folder / "work").mkdir()
        command = [sys.executable, "-m", "benchmarks.device_checks.child"]
        command += [check.function, device, str(folder / "work"), str(answer)]
        began = time.monotonic()
        with log.open("wb") as words:
            code = _run(command, words, limit_seconds)
        seconds = round(time.monotonic() - began, 2)
        found = json.loads(answer.read_bytes()) if answer.exists() else {"figures": {}, "limits": {}}
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-_LAST_LINES:])
    ended = {"name": check.name, "seconds": seconds, "limit_seconds": round(limit_seconds, 1)}
    measured = {"figures": found["figures"], "limits": found["limits"]}
    if code is None:
        words_of_limit = f"killed after {limit_seconds:g} s\n{tail}".strip()
        return {**ended, "status": "timed_out", "error": words_of_limit, **measured}
    if "error" not in found:
        error = f"its process ended with exit code {code} before the check did\n{tail}".strip()
        return {**ended, "status": "failed", "error": error, **measured}
    error = found["error"]
    if found["status"] == "failed" and tail:
        error = f"{error}\nlast words:\n{tail}"
    return {**ended, "status": found["status"], "error": error, **measured}


def _run(command: list[str], words: Any, limit_seconds: float) -> int | None:
    """The exit code; None where the limit ended it. Nothing that it started is left."""
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=words, stderr=words, start_new_session=True
    )
    try:
        return process.wait(limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        # Descendants in sessions of their own first, while their parents can still be seen.
        if process.poll() is None:
            kill_tree(process.pid)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
