"""The commands `init`, `check`, `calibrate`, `schema` and `doctor`, which need no study database."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuner.domain.errors import InfeasibleError, JobError, TunerError
from tuner.domain.output_file import check_free, write_output
from tuner.domain.safe_text import printable
from tuner.service.next_steps import suggest
from tuner.service.options import (
    INTERRUPTED,
    Format,
    FormatOption,
    JobPath,
    MachineFormat,
)
from tuner.service.output import print_rows, say, show

if TYPE_CHECKING:
    from tuner.service.opening import OpenedJob


def init(
    path: Annotated[Path, typer.Argument(help="Path of the new job file.")] = Path("job.toml"),
    example: Annotated[
        str | None, typer.Option(help="Start from a bundled job, such as digits.", show_default=False)
    ] = None,
    script: Annotated[
        str | None,
        typer.Option(
            help="Draft the job from a training command, such as 'python train.py --data data', from its "
            "--help output and from a trial run of up to a minute.",
            show_default=False,
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="With --script: run the command without asking.")
    ] = False,
    wait: Annotated[str, typer.Option(help="With --script: longest trial run, such as 5m.")] = "60s",
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a job file to start from: from your own script, an example, or a commented template."""
    from tuner.job import example_scripts, example_text, job_template

    if script is not None:
        if example is not None:
            raise JobError("--script and --example exclude each other; give one of them")
        _init_from_script(script, path, yes=yes, force=force, wait=wait)
        return
    if yes:
        raise JobError("--yes goes with --script; give the training command by --script, or leave out --yes")
    texts = {path: example_text(example) if example else job_template()}
    if example:
        texts |= {path.parent / name: text for name, text in example_scripts(example).items()}
    for file in texts:
        check_free(file, force=force)
    for file, text in texts.items():
        write_output(file, text)
    written = " and ".join(str(file) for file in texts)
    show(f"wrote {written}")


def _init_from_script(command: str, path: Path, *, yes: bool, force: bool, wait: str) -> None:
    """Writes a job file for a training command, then checks it as `paceline check` does."""
    import sys

    from tuner.service.drafting import check_draft, draft_job

    seconds = _seconds_of(wait)
    if path.suffix != ".toml":
        raise JobError(f"{path}: the name of a job file ends in .toml; give another path, such as job.toml")
    check_free(path, force=force)

    def may_run(question: str) -> bool:
        if yes:
            return True
        if not sys.stdin.isatty():
            say("note: the command was not run, since there is no terminal; --yes runs it without asking")
            return False
        return typer.confirm(printable(question), default=True, err=True)

    drafted = draft_job(command, path, may_run=may_run, say=say, seconds=seconds)
    say(f"wrote {path}")
    rows: list[tuple[str, Any]] = []
    failure: TunerError | None = None
    if drafted.can_be_checked:
        say("checking the job file: running the command once more, until its first score")
        try:
            drafted, rows = check_draft(drafted, say=say)
        except TunerError as error:
            failure = error
        except KeyboardInterrupt:
            say(f"{path} was written, and its check was interrupted")
            raise typer.Exit(INTERRUPTED) from None
    guesses = drafted.job.guesses()
    rows += [("guess", words) for words in guesses]
    print_rows([{"name": what, "value": value} for what, value in rows], Format.TABLE)
    if failure is not None:
        say(f"note: {path} was written, but its check failed: correct it, then run: paceline check {path}")
        raise failure
    say(f"correct what is marked GUESS in {path}" if guesses else f"read {path} before you run it")
    suggest("run {job}" if drafted.can_be_checked else "check {job}", job=path)


def _seconds_of(wait: str) -> float:
    from tuner.domain.section import parse_duration

    try:
        return float(parse_duration(wait))
    except ValueError as error:
        raise JobError(f"--wait: {error}") from error


def check(
    job: JobPath,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="For a command: also test that it saves and resumes."),
    ] = False,
    wait: Annotated[
        str, typer.Option(help="Longest time until a command's first score, such as 10m.")
    ] = "60s",
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check a job file, its workload or command, and its data with one tiny probe."""
    from tuner.job import job_warnings
    from tuner.service.opening import open_job

    opened = open_job(job)
    for warning in job_warnings(opened.job):
        say(f"note: {warning}")
    if opened.job.runs_command:
        from tuner.service.check_command import check_command, command_rows, without_score

        seconds = _seconds_of(wait)
        launcher = opened.job.cluster.launcher
        say(
            f"running the command with the {launcher} launcher until its first score, for at most {wait} or "
            "one epoch"
        )
        checked = check_command(opened, resume=resume, wait_seconds=seconds, say=say)
        rows = command_rows(opened, checked)
    else:
        rows = _workload_rows(opened)
    print_rows([{"name": what, "value": value} for what, value in rows], output_format)
    if opened.job.runs_command and checked.first_score is None:
        raise InfeasibleError(without_score(checked, seconds, opened.job.command.metrics))


def _workload_rows(opened: OpenedJob) -> list[tuple[str, Any]]:
    """Runs a short probe of a Workload or a recording. Returns the result as rows of name and value."""
    from tuner.service.check_command import check_job, cost_rows

    recording = opened.job.recording()
    say(f"{'replaying' if recording else 'scoring the untrained model and training'} a few steps")
    measurement, epoch_samples = check_job(opened)
    step = measurement.step_seconds
    rows: list[tuple[str, Any]] = [
        ("job", opened.job.name),
        ("probed", str(measurement.configuration)),
        ("start-up seconds", round(measurement.startup_seconds, 3)),
    ]
    per_second = None
    if step is not None and step.median > 0:
        per_second = measurement.configuration.batch_size / step.median
        rows += [
            ("step milliseconds", round(1000 * step.median, 3)),
            ("samples per second", round(per_second, 1)),
        ]
    if recording:
        rows += [
            ("recording", recording.name),
            ("source", recording.source),
            ("configurations", len(recording.configurations())),
        ]
    else:
        scoring_seconds = measurement.scoring_seconds / max(len(measurement.curve), 1)
        rows.append(("seconds of a scoring", round(scoring_seconds, 3)))
        if per_second is not None:
            rows.append(("seconds per epoch", round(epoch_samples / per_second, 2)))
        rows += [
            ("parameter bytes", measurement.parameter_bytes),
            ("peak bytes of a rank", measurement.peak_bytes),
        ]
    return rows + cost_rows(opened)


def calibrate(
    job: JobPath,
    nodes: Annotated[
        int | None,
        typer.Option(
            help="Number of nodes to measure, at least 2; by default, as many as possible up to 8.",
            show_default=False,
        ),
    ] = None,
    output_format: Annotated[
        MachineFormat, typer.Option("--format", "-f", help="toml prints a section for a job file.")
    ] = MachineFormat.TOML,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Also write the section to this file.", show_default=False),
    ] = None,
) -> None:
    r"""Measure step times and links, and print \[cluster.machine] for jobs that emulate such nodes."""
    from tuner.service.calibrating import (
        calibrate_job,
        constants_data,
        constants_rows,
        section_of,
    )
    from tuner.service.opening import open_job

    opened = open_job(job)
    if output is not None:
        check_free(output, force=None)
    constants = calibrate_job(opened, num_nodes=nodes, listen=say)
    for warning in constants.warnings:
        say(f"warning: {warning}")
    section = section_of(constants, opened)
    if output is not None:
        write_output(output, section)
    if output_format is MachineFormat.TOML:
        show(section, nl=False)
    elif output_format is MachineFormat.JSON:
        show(json.dumps(constants_data(constants), indent=2))
    else:
        print_rows(constants_rows(constants), Format.TABLE)


def schema(
    recommendation: Annotated[
        bool, typer.Option("--recommendation", help="Print the schema of recommendation.json instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of job files."""
    from tuner.job import job_schema

    if recommendation:
        from tuner.report import recommendation_schema

        show(json.dumps(recommendation_schema(), indent=2))
        return
    show(json.dumps(job_schema(), indent=2))


def doctor(output_format: FormatOption = Format.TABLE) -> None:
    """Show the hardware and software that Paceline uses here; paste it into bug reports."""
    from tuner.service.doctor import doctor_rows

    rows = [{"name": what, "value": value, "advice": advice} for what, value, advice in doctor_rows()]
    print_rows(rows, output_format)
