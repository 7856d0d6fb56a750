"""Runs one check in a process of its own: `python -m benchmarks.device_checks.child MODULE:FUNCTION ...`."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import Any

from benchmarks.device_checks.findings import Findings, SkippedError, save_json


def main(function: str, device: str, folder: Path, answer: Path) -> int:
    """Runs a check and writes what it found.

    Args:
        function: `module:function`; called with `Findings`.
        device: `cuda` or `cpu`.
        folder: For whatever the check writes.
        answer: Where the result goes, rewritten after each figure.

    Returns:
        The exit code: 0 where the check passed or was skipped.
    """

    def save(found: dict[str, Any]) -> None:
        save_json(answer, {"status": "timed_out", **found})

    findings = Findings(device=device, folder=folder, save=save)
    error = None
    try:
        module, _, name = function.partition(":")
        getattr(importlib.import_module(module), name)(findings)
        status = "failed" if findings.failures else "passed"
        error = "\n".join(findings.failures) or None
    except SkippedError as reason:
        status, error = "skipped", str(reason)
    except Exception:
        status, error = "failed", "\n".join([*findings.failures, traceback.format_exc()])
    save_json(answer, {"status": status, "error": error, **findings.found()})
    return 1 if status == "failed" else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])))
