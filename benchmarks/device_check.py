"""Whether Paceline works on an accelerator: one short check for each thing that only a device can show.

    python -m benchmarks.device_check --device cuda --output FILE.json
    python -m benchmarks.device_check --device cpu --only step_times

Checks run one after the other, the most valuable first, each in a process of its own with its own time
limit. The results file is rewritten after each. `--device cpu` runs the same checks with small sizes.
`benchmarks/results/README.md` says what each check shows; `benchmarks/device_check.sh` sets up a machine
without a network. The exit code is 0 only if every check passed.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from benchmarks.device_checks.machine import machine_facts
from benchmarks.device_checks.runner import Check, run_checks

_HERE = "benchmarks.device_checks"

#: The most valuable first.
CHECKS = (
    Check(name="digits", function=f"{_HERE}.tuned_jobs:check_digits", seconds=60),
    Check(name="char_lm", function=f"{_HERE}.tuned_jobs:check_char_lm", seconds=90),
    Check(name="step_times", function=f"{_HERE}.step_times:check", seconds=75),
    Check(name="out_of_memory", function=f"{_HERE}.out_of_memory:check", seconds=60),
    Check(name="checkpoints", function=f"{_HERE}.resumed_runs:check", seconds=75),
    Check(name="own_script", function=f"{_HERE}.own_script:check", seconds=75),
    Check(name="emulation", function=f"{_HERE}.emulated_ranks:check", seconds=60),
)

#: Seven minutes.
TOTAL_SECONDS = 420.0
#: Without a device nobody pays by the minute, and cores may be shared.
CPU_TIMES_LONGER = 8.0


def main(
    device: Annotated[Literal["cuda", "cpu"], typer.Option(help="What is checked.")] = "cuda",
    output: Annotated[Path, typer.Option(help="The results file.")] = Path("device_check.json"),
    only: Annotated[list[str] | None, typer.Option(help="Some of the checks, by name.")] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            min=1, help=f"For all checks together; {TOTAL_SECONDS:g}, on the CPU more.", show_default=False
        ),
    ] = None,
) -> None:
    """Run the checks of a device and write what they found."""
    # Ended by a signal, it takes the check that runs with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    known = [check.name for check in CHECKS]
    for name in only or ():
        if name not in known:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(known)}", param_hint="--only")
    longer = CPU_TIMES_LONGER if device == "cpu" else 1.0
    chosen = [
        replace(check, seconds=longer * check.seconds) for check in CHECKS if not only or check.name in only
    ]
    command = " ".join(["python -m benchmarks.device_check", *sys.argv[1:]])
    facts = {"command": command, **machine_facts(device)}
    passed = run_checks(
        chosen,
        device=device,
        output=output,
        total_seconds=longer * TOTAL_SECONDS if seconds is None else seconds,
        facts=facts,
        listen=lambda words: typer.echo(words, err=True),
    )
    typer.echo(f"{'all checks passed' if passed else 'not all checks passed'}: {output}")
    if not passed:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
