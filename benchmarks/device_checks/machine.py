"""What a result has to say of the machine it was measured on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


def machine_facts(device: str) -> dict[str, Any]:
    """Device, versions and the commit of Paceline, as plain data.

    torch is asked in a process of its own: this one starts others and is to stay without a device.
    """
    return {
        "device": device,
        "is_cpu": device == "cpu",
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "commit": _commit(),
        **_asked_of_torch(device),
    }


_ASK = """
import json, torch
facts = {"torch": torch.__version__, "cuda": torch.version.cuda}
if %r == "cuda" and torch.cuda.is_available():
    of = torch.cuda.get_device_properties(0)
    facts |= {"device_name": of.name, "device_memory_gib": round(of.total_memory / 2**30, 1),
              "num_devices": torch.cuda.device_count(), "cudnn": torch.backends.cudnn.version()}
print(json.dumps(facts))
"""


def _asked_of_torch(device: str) -> dict[str, Any]:
    try:
        asked = subprocess.run(
            [sys.executable, "-c", _ASK % device], capture_output=True, text=True, timeout=60, check=True
        )
        facts: dict[str, Any] = json.loads(asked.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, OSError, ValueError, IndexError) as error:
        return {"torch": f"could not be asked: {error}"}
    return facts


def _commit() -> str | None:
    """The commit that is checked out; None without git, as where only the files were copied."""
    try:
        asked = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return asked.stdout.strip() or None
