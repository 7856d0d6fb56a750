"""Command line interface; it imports torch only when something trains, so that it starts quickly."""

from __future__ import annotations

import csv
import json
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from tuner.domain.errors import InfeasibleError, JobError, StorageError, TunerError

if TYPE_CHECKING:
    from storage import Storage
    from tuner.domain.measurement import Measurement
    from tuner.search.events import SearchEvent
    from tuner.service.opening import OpenedJob

INTERRUPTED, PROVISIONAL = 130, 4

app = typer.Typer(
    name="paceline",
    help="Finds the nodes, batch size, learning rate and strategy that bring a distributed PyTorch "
    "training to its target soonest, or cheapest.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
database = typer.Typer(help="The study database.", no_args_is_help=True)
app.add_typer(database, name="db")


class Format(StrEnum):
    """Output formats."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class MachineFormat(StrEnum):
    """Output formats of a calibration."""

    TOML = "toml"
    TABLE = "table"
    JSON = "json"


class Sampler(StrEnum):
    """Samplers that choose the probes."""

    MODEL = "model"
    TPE = "tpe"
    GP = "gp"
    RANDOM = "random"


class LaunchTarget(StrEnum):
    """Export targets of a recommendation."""

    TORCHRUN = "torchrun"
    SLURM = "slurm"
    RAY = "ray"
    K8S = "k8s"
    SKYPILOT = "skypilot"
    ENV = "env"


JobPath = Annotated[Path, typer.Argument(help="The job file (TOML).", show_default=False)]
StorageUrl = Annotated[
    str | None,
    typer.Option(
        "--storage",
        envvar="PACELINE_STORAGE",
        help="SQLAlchemy URL of the study database; SQLite next to the job file by default.",
        show_default=False,
    ),
]
Output = Annotated[
    Path | None,
    typer.Option(
        "--output",
        "-o",
        envvar="PACELINE_OUTPUT",
        help="Folder for reports and probes; paceline-out/NAME by default.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    Format, typer.Option("--format", "-f", envvar="PACELINE_FORMAT", help="Output format.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"paceline {version('paceline')}")
        raise typer.Exit


@app.callback()
def common(
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Handles the options that all commands share."""


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Path of the new job file.")] = Path("job.toml"),
    example: Annotated[
        str | None, typer.Option(help="Start from a bundled job, such as digits.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a job file to start from, and the script of an example that has one."""
    from tuner.job import example_scripts, example_text, job_template

    texts = {path: example_text(example) if example else job_template()}
    if example:
        texts |= {path.parent / name: text for name, text in example_scripts(example).items()}
    for file in texts:
        if file.exists() and not force:
            raise JobError(f"{file} already exists; give another path, or --force to overwrite it")
    for file, text in texts.items():
        try:
            file.write_text(text)
        except OSError as error:
            raise StorageError(f"{file} cannot be written: {error.strerror}; choose another path") from error
    written = " and ".join(str(file) for file in texts)
    typer.echo(f"wrote {written}; next: paceline check {path}")


@app.command()
def check(
    job: JobPath,
    resume: Annotated[
        bool, typer.Option("--resume", help="Also save, resume and compare (jobs with a command).")
    ] = False,
    wait: Annotated[
        str, typer.Option(help="Longest time until a command's first score, such as 10m.")
    ] = "60s",
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Check a job file, its workload or command, and its data with one tiny probe."""
    from tuner.job import job_warnings

    opened = _opened(job)
    for warning in job_warnings(opened.job):
        _report(f"note: {warning}")
    if opened.job.runs_command:
        from tuner.job.values import parse_duration
        from tuner.service.check_command import check_command, command_rows, without_score

        try:
            seconds = float(parse_duration(wait))
        except ValueError as error:
            raise JobError(f"--wait: {error}") from error
        launcher = opened.job.cluster.launcher
        _report(
            f"running the command by the {launcher} launcher until its first score, for {wait} at most or "
            "an epoch"
        )
        checked = check_command(opened, resume=resume, wait_seconds=seconds, say=_report)
        rows = command_rows(opened, checked)
    else:
        rows = _workload_rows(opened)
    _print_rows([{"what": what, "value": value} for what, value in rows], output_format)
    if opened.job.runs_command and checked.first_score is None:
        raise InfeasibleError(without_score(checked, seconds))


def _workload_rows(opened: OpenedJob) -> list[tuple[str, Any]]:
    """What a tiny probe of a Workload, or of a recording, showed."""
    from tuner.service.check import check_job, cost_rows

    recording = opened.job.recording()
    _report(f"{'replaying' if recording else 'scoring the untrained model and training'} a few steps")
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
            ("samples a second", round(per_second, 1)),
        ]
    if recording:
        rows += [
            ("recording", recording.name),
            ("source", recording.source),
            ("configurations", len(recording.configurations())),
        ]
    else:
        rows.append(("seconds of a scoring", round(_scoring_seconds(measurement), 3)))
        if per_second is not None:
            rows.append(("seconds an epoch", round(epoch_samples / per_second, 2)))
        rows += [
            ("parameter bytes", measurement.parameter_bytes),
            ("peak bytes of a rank", measurement.peak_bytes),
        ]
    return rows + cost_rows(opened)


@app.command()
def run(
    job: JobPath,
    storage: StorageUrl = None,
    output: Output = None,
    sampler: Annotated[
        Sampler, typer.Option(envvar="PACELINE_SAMPLER", help="Sampler that chooses the probes.")
    ] = Sampler.MODEL,
    budget: Annotated[
        str | None,
        typer.Option(
            envvar="PACELINE_BUDGET", help="Maximum time to spend, such as 10m or 2h.", show_default=False
        ),
    ] = None,
    max_dollars: Annotated[
        float | None,
        typer.Option(envvar="PACELINE_MAX_DOLLARS", help="Maximum dollars to spend.", show_default=False),
    ] = None,
    parallel: Annotated[
        int,
        typer.Option(
            min=1,
            envvar="PACELINE_PARALLEL",
            help="Maximum number of concurrent probes, if enough nodes are free.",
        ),
    ] = 1,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start a new study.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Train the recommendation to the target.")] = False,
    confirm: Annotated[
        int | None,
        typer.Option(
            "--confirm",
            min=1,
            metavar="N",
            help="Train the recommendation and the present settings with N new seeds each, and compare them.",
            show_default=False,
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help=f"Exit with {PROVISIONAL} if the answer is provisional.")
    ] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Tune a job: search, train, recommend, report. Called again, it resumes."""
    from tuner.report import recommendation_text
    from tuner.service.opening import default_output
    from tuner.service.run import RunOptions, run_job

    opened = _opened(job, budget=budget, max_dollars=max_dollars)
    options = RunOptions(
        output=output or default_output(opened.job),
        sampler=sampler.value,
        fresh=fresh,
        verify=verify,
        parallel=parallel,
        confirm=confirm or 0,
    )
    with _stored(storage, job) as store, _progress() as listen:
        result = run_job(opened, store, options, listen)
    recommendation = result.recommendation
    if output_format is Format.TABLE:
        typer.echo(recommendation_text(recommendation))
        typer.echo(f"report: {result.files['report.html']}")
    elif output_format is Format.JSON:
        typer.echo(json.dumps(recommendation.to_dict(), indent=2))
    else:
        data = recommendation.to_dict()["choice"]
        _print_rows([{**data["configuration"], **_flat(data, "seconds")}], output_format)
    if strict and recommendation.provisional:
        raise typer.Exit(PROVISIONAL)


@app.command()
def train(
    job: JobPath,
    batch_size: Annotated[int, typer.Option(help="Global batch size.")],
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")],
    nodes: Annotated[
        int | None, typer.Option(help="Number of nodes; needed unless the job allows only one.")
    ] = None,
    strategy: Annotated[
        str | None, typer.Option(help="Strategy; the job's if it has only one, else all_reduce.")
    ] = None,
    tau: Annotated[int | None, typer.Option(help="Steps between two exchanges.")] = None,
    beta: Annotated[float | None, typer.Option(help="elastic_averaging: moving rate times ranks.")] = None,
    outer_learning_rate: Annotated[float | None, typer.Option(help="diloco: rate of outer steps.")] = None,
    outer_momentum: Annotated[float | None, typer.Option(help="diloco: momentum of outer steps.")] = None,
    storage: StorageUrl = None,
    output: Output = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Train one configuration to the job's target, without a search. Called again, it resumes."""
    from search_spaces import Configuration
    from tuner.advice.recommend import trained_model
    from tuner.job import configuration_with_knobs
    from tuner.search.state import run_of
    from tuner.service.opening import default_output, require_training
    from tuner.service.reporting import not_arrived
    from tuner.service.training import train_configuration

    opened = _opened(job)
    require_training(opened)
    counts, space = opened.cluster.node_counts, opened.job.space
    if nodes is None:
        if len(counts) > 1:
            listed = ", ".join(map(str, counts))
            raise JobError(f"{job}: --nodes is missing: the job allows {listed} nodes; choose one of them")
        nodes = counts[0]
    if strategy is None:
        strategy = space.strategy[0] if space and len(space.strategy) == 1 else "all_reduce"
    try:
        configuration = configuration_with_knobs(
            Configuration(nodes=nodes, batch_size=batch_size, learning_rate=learning_rate, strategy=strategy),
            tau=tau,
            beta=beta,
            outer_learning_rate=outer_learning_rate,
            outer_momentum=outer_momentum,
        )
    except ValueError as error:
        raise JobError(f"{job}: {error}") from error
    folder = output or default_output(opened.job)
    with _stored(storage, job) as store, _progress() as listen:
        state = train_configuration(opened, store, configuration, folder, listen)
    trained = run_of(state, configuration)
    if trained is None or trained.seconds_to_target is None:
        raise not_arrived(configuration, state)
    rows: list[dict[str, Any]] = [
        {"what": "training seconds to target", "value": round(trained.seconds_to_target, 3)},
        {"what": "samples to target", "value": trained.samples_to_target},
        {"what": "trained model", "value": trained_model(trained)},
    ]
    _print_rows(rows, output_format)


@app.command()
def status(job: JobPath, storage: StorageUrl = None, output_format: FormatOption = Format.TABLE) -> None:
    """Show the status of a job's study."""
    from tuner.service.views import require_study, status_rows

    opened = _opened(job)
    with _stored(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        _print_rows(status_rows(store.ledger, study), output_format)


@app.command()
def trials(job: JobPath, storage: StorageUrl = None, output_format: FormatOption = Format.TABLE) -> None:
    """List every probe of a job's study."""
    from tuner.service.views import require_study, trial_rows

    opened = _opened(job)
    with _stored(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        _print_rows(trial_rows(store.ledger, study), output_format)


@app.command()
def explain(
    job: JobPath,
    trial: Annotated[int, typer.Argument(help="Number of the trial.")],
    storage: StorageUrl = None,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Show what was measured and predicted for one trial."""
    from tuner.service.views import explain_rows, require_study

    opened = _opened(job)
    with _stored(storage, job, to_read=True) as store:
        study = require_study(store.ledger, opened)
        _print_rows(explain_rows(store.ledger, study, trial), output_format)


@app.command()
def report(job: JobPath, storage: StorageUrl = None, output: Output = None) -> None:
    """Write a job's report again from its study, without probing."""
    from tuner.service.opening import default_output
    from tuner.service.reporting import report_job

    opened = _opened(job)
    with _stored(storage, job, to_read=True) as store:
        files = report_job(opened, store, output or default_output(opened.job))
    for path in files.values():
        typer.echo(path)


@app.command()
def record(
    job: JobPath,
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="The file; STUDY.jsonl.gz in this folder by default.", show_default=False
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    output_format: FormatOption = Format.TABLE,
) -> None:
    """Write a recording of a job's study: its runs and curves, for later replay."""
    from tuner.service.record import record_study

    opened = _opened(job)
    with _stored(storage, job, to_read=True) as store:
        made = record_study(opened, store, output, force=force)
    rows: list[dict[str, Any]] = [
        {"what": "recording", "value": str(made.path)},
        {"what": "configurations", "value": made.num_runs},
        {"what": "reached the target", "value": made.num_arrived},
        *({"what": "left out", "value": words} for words in made.left_out),
    ]
    _print_rows(rows, output_format)


@app.command()
def export(
    job: JobPath,
    target: Annotated[
        LaunchTarget,
        typer.Option(
            "--target",
            "-t",
            help="A script, an sbatch file, a Ray job, a Kubeflow TrainJob, a SkyPilot task, or an "
            "environment file.",
            show_default=False,
        ),
    ],
    storage: StorageUrl = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="The file; stdout by default.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    accelerator: Annotated[
        str | None,
        typer.Option(help="Type of a device, such as A100; CPU cores by default.", show_default=False),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(help="k8s, skypilot: the container image it runs in.", show_default=False),
    ] = None,
) -> None:
    """Print, or write with --output, a launch file that trains the recommendation elsewhere."""
    from tuner.service.exporting import ExportOptions, export_job

    opened = _opened(job)
    options = ExportOptions(
        target=target.value,
        output=output,
        force=force,
        accelerator=accelerator,
        image=image,
        made_by=_export_line(job, target, accelerator=accelerator, image=image, output=output),
    )
    with _stored(storage, job, to_read=True) as store:
        text = export_job(opened, store, options)
    typer.echo(text if output is None else f"wrote {output}", nl=output is not None)


def _export_line(job: Path, target: LaunchTarget, **others: object) -> str:
    """The export's command line, to be repeated; without the database URL, which may hold a password."""
    flags = [f"--{name}={value}" for name, value in others.items() if value is not None]
    return shlex.join(["paceline", "export", str(job), "--target", target.value, *flags])


@app.command()
def calibrate(
    job: JobPath,
    nodes: Annotated[
        int | None,
        typer.Option(
            help="Number of nodes whose links are measured; by default as many as have cores.",
            show_default=False,
        ),
    ] = None,
    output_format: Annotated[
        MachineFormat, typer.Option("--format", "-f", help="toml: a section to paste into a job.")
    ] = MachineFormat.TOML,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write the section to this file too.", show_default=False),
    ] = None,
) -> None:
    r"""Measure steps and links here, and print \[cluster.machine] for jobs that emulate such nodes."""
    from tuner.service.calibrating import (
        calibrate_job,
        check_free,
        constants_data,
        constants_rows,
        section_of,
        write_section,
    )

    opened = _opened(job)
    if output is not None:
        check_free(output)
    constants = calibrate_job(opened, num_nodes=nodes, listen=_report)
    for warning in constants.warnings:
        _report(f"warning: {warning}")
    section = section_of(constants, opened)
    if output is not None:
        write_section(output, section)
    if output_format is MachineFormat.TOML:
        typer.echo(section, nl=False)
    elif output_format is MachineFormat.JSON:
        typer.echo(json.dumps(constants_data(constants), indent=2))
    else:
        _print_rows(constants_rows(constants), Format.TABLE)


@app.command()
def schema(
    recommendation: Annotated[
        bool, typer.Option("--recommendation", help="Print the schema of recommendation.json instead.")
    ] = False,
) -> None:
    """Print the JSON Schema of job files."""
    from tuner.job import job_schema

    if recommendation:
        from tuner.report import recommendation_schema

        typer.echo(json.dumps(recommendation_schema(), indent=2))
        return
    typer.echo(json.dumps(job_schema(), indent=2))


@app.command()
def doctor(output_format: FormatOption = Format.TABLE) -> None:
    """Show the hardware and software Paceline uses here; paste it into bug reports."""
    from tuner.service.doctor import doctor_rows

    rows = [{"what": what, "value": value, "advice": advice} for what, value, advice in doctor_rows()]
    _print_rows(rows, output_format)


@database.command("upgrade")
def upgrade(
    url: Annotated[str, typer.Argument(help="SQLAlchemy URL of the study database.", show_default=False)],
) -> None:
    """Upgrade a study database to the tables of this version; its contents are kept."""
    from storage import upgrade as upgrade_storage

    upgrade_storage(url)
    typer.echo("the study database is up to date")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Runs a command and exits with its code; errors are one message on stderr, not a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = app(args=list(arguments) if arguments is not None else None, standalone_mode=False)
    except TunerError as error:
        typer.echo(f"paceline: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Exception as error:
        # Typer's usage errors have their own message and exit code.
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()
        sys.exit(getattr(error, "exit_code", 2))
    # Typer turns an interrupt into this exit code, without a message.
    if code == INTERRUPTED:
        typer.echo("paceline: interrupted; run the same command to resume", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _interrupt(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _opened(path: Path, *, budget: str | None = None, max_dollars: float | None = None) -> OpenedJob:
    """The job; flags and environment override the file."""
    from tuner.service.opening import open_job

    return open_job(path, time_budget=budget, max_dollars=max_dollars)


@contextmanager
def _stored(url: str | None, job: Path, *, to_read: bool = False) -> Iterator[Storage]:
    """The study database; a command that only reads does not create one."""
    from storage import open_storage
    from tuner.service.opening import default_storage_url

    url = url or default_storage_url(job)
    file = Path(url.removeprefix("sqlite:///"))
    if to_read and url.startswith("sqlite:///") and file.parent.is_dir() and not file.exists():
        raise JobError(
            f"{job}: there is no study of this job here yet, and no database {file}; `paceline run {job}` "
            "starts one, or name its database with --storage"
        )
    with open_storage(url) as store:
        yield store


def _report(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _progress() -> Iterator[Any]:
    """Shows the progress of a search on stderr: a live line on a terminal, plain lines elsewhere."""
    from tuner.service.console import PlainConsole, RichConsole

    console = RichConsole() if sys.stderr.isatty() else PlainConsole(_report)

    def listen(event: SearchEvent) -> None:
        console.show(event)

    try:
        yield listen
    finally:
        console.close()


def _scoring_seconds(measurement: Measurement) -> float:
    return measurement.scoring_seconds / max(len(measurement.curve), 1)


def _flat(data: dict[str, Any], key: str) -> dict[str, Any]:
    return {f"{key}_{name}": value for name, value in (data[key] or {}).items()}


def _print_rows(rows: list[dict[str, Any]], output_format: Format) -> None:
    """Results on stdout: a table for people, JSON or CSV for programs."""
    if output_format is Format.JSON:
        typer.echo(json.dumps(rows, indent=2, default=str))
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if output_format is Format.CSV:
        writer = csv.DictWriter(sys.stdout, fieldnames=columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    texts = [[_text(row.get(column)) for column in columns] for row in rows]
    widths = [
        max(len(column), *(len(line) for text in texts for line in text[i].splitlines() or [""]))
        for i, column in enumerate(columns)
    ]
    typer.echo("  ".join(c.ljust(w) for c, w in zip(columns, widths, strict=True)).rstrip())
    for text in texts:
        typer.echo("  ".join(t.ljust(w) for t, w in zip(text, widths, strict=True)).rstrip())


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
