"""Size, CPU time and memory of the report of a large study.

    python -m benchmarks.reports
    python -m benchmarks.reports --json

For each number of probes, a study with curves of 100 points is stored, and `paceline report` is called. Time
and memory are stated beyond those of a program that only imports what the command needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.database import cost, fill, write_jobs

NUM_PROBES = (100, 2000)
#: Imports what `paceline report` imports, and prints the CPU seconds and the peak memory in kB.
_IMPORTS = """
import resource, cli, storage, tuner.service.opening, tuner.service.reporting
import matplotlib.figure, matplotlib.backends.backend_svg
status = open("/proc/self/status").read()
peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime, peak)
"""


def imports() -> tuple[float, float]:
    """Returns the CPU seconds and the peak memory in MB of a program that only imports the modules."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-c", _IMPORTS]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    seconds, kilobytes = ended.stdout.split()
    return float(seconds), int(kilobytes) / 1024


def rows(sizes: Sequence[int]) -> list[dict[str, Any]]:
    """Measures the report of a study of each size, beyond the imports."""
    import_seconds, import_megabytes = imports()
    found = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            job, url = write_jobs(folder)["command"], f"sqlite:///{folder}/study.db"
            fill(url, job, size)
            seconds, megabytes = cost(folder, "report", job.name, "--storage", url, "--output", "out")
            page = (folder / "out" / "report.html").stat().st_size
        found.append(
            {
                "probes": size,
                "html_kilobytes": round(page / 1000, 1),
                "cpu_seconds": round(seconds - import_seconds, 2),
                "peak_megabytes": round(megabytes - import_megabytes, 1),
                "import_cpu_seconds": round(import_seconds, 2),
                "import_megabytes": round(import_megabytes, 1),
            }
        )
    return found


def main(
    probes: Annotated[list[int] | None, typer.Option(help="Number of probes; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measures what the report of a study costs beyond its imports."""
    found = rows(probes or NUM_PROBES)
    if as_json:
        print(json.dumps(found, indent=1))
        return
    print("probes  report.html kB  CPU s  peak MB")
    for row in found:
        print(
            f"{row['probes']:6}  {row['html_kilobytes']:14.0f}  {row['cpu_seconds']:5.1f}  "
            f"{row['peak_megabytes']:7.0f}"
        )


if __name__ == "__main__":
    typer.run(main)
