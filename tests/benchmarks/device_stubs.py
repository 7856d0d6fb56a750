"""Tiny checks for the runner's tests; they are named by import path and run in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from benchmarks.device_checks.findings import Findings, SkippedError


def passes(found: Findings) -> None:
    found.require("answer", 42.0, at_least=40, at_most=43)


def beyond_its_limit(found: Findings) -> None:
    found.require("ratio", 1.5, at_most=1.03)
    found.expect("healthy", True)


def raises(found: Findings) -> None:
    found.note("seen", 1)
    raise RuntimeError("a kernel went astray")


def skips(found: Findings) -> None:
    raise SkippedError("transformers is not installed")


def dies(found: Findings) -> None:
    found.note("seen", 1)
    print("about to die", flush=True)
    os.abort()


def hangs(found: Findings) -> None:
    # A child in a session of its own, as the ranks' processes are.
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    child = subprocess.Popen(command, start_new_session=True)
    found.note("child", child.pid)
    time.sleep(600)
