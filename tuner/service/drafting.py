"""The use case `init --script`: writes a first version (a draft) of a job file for a training command."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tuner.domain.errors import InfeasibleError
from tuner.domain.output_file import write_output
from tuner.drafting.command_line import CommandLine, split_command
from tuner.drafting.config_files import ConfigFile, config_files
from tuner.drafting.draft import Draft, given_names, given_value, is_state
from tuner.drafting.help_text import is_help, options_of_help
from tuner.drafting.job_text import JobDraft
from tuner.drafting.parameters import MAYBE_INPUTS, Parameter, Role, roles_of
from tuner.drafting.printed_scores import epoch_samples_in, read_output
from tuner.drafting.readings import Reading
from tuner.drafting.scored_files import read_files, read_reports
from tuner.drafting.source_code import constants_in, read_source
from tuner.drafting.trial_run import TrialRun, run_for
from tuner.service.check_command import check_command, command_rows, without_score
from tuner.service.opening import open_job, protect_storage_url

#: Maximum time of the trial run of a command, and of printing its help, in seconds. It is long because
#: frameworks take long to start.
RUN_SECONDS, _HELP_SECONDS = 60.0, 60.0
#: A trial run that fails within this many seconds may have failed because of the output paths that Paceline
#: passed to the command.
_EARLY_SECONDS = 30.0
#: Programs whose `--help` does not describe the training script that they start.
_SHELLS = {"bash", "sh", "zsh", "dash", "make", "fish"}
_NO_PATH = re.compile(r"No such file|FileNotFoundError|does not exist|not a directory|NotADirectory", re.I)
_NO_PROGRAM = re.compile(r"ModuleNotFoundError|No module named|command not found|: not found")
_NEEDS_MORE = re.compile(r"required|missing (option|argument|parameter)", re.I)


@dataclass(frozen=True, kw_only=True)
class Drafted:
    """A job file that was drafted from a command.

    Args:
        path: Path of the job file.
        job: The settings that were found in the script, its help and its output. The text of the job file is
            made from them.
    """

    path: Path
    job: JobDraft

    @property
    def can_be_checked(self) -> bool:
        """Whether the command printed scores, and has options for batch size and learning rate."""
        return self.job.reading is not None and {"batch_size", "learning_rate"} <= set(self.job.draft.roles)


def draft_job(
    command: str,
    path: Path,
    *,
    may_run: Callable[[str], bool],
    say: Callable[[str], object],
    seconds: float = RUN_SECONDS,
) -> Drafted:
    """Writes a job file for a training command.

    The function reads the source and the help of the script. If `may_run` allows it, the function also runs
    the command for a short time, to find the scores that the command reports.

    Args:
        command: The training command, as typed in the current folder.
        path: Path of the job file. An existing file is overwritten.
        may_run: Function that is called with a question for the user; returns whether the command may run.
        say: Function that is called with lines of text on the progress.
        seconds: Longest time of the trial run, in seconds.

    Raises:
        JobError: The command is not a valid command line.
        StorageError: The file cannot be written.
    """
    protect_storage_url()
    folder = Path.cwd()
    draft = draft_of(split_command(command), folder, say, may_run)
    with tempfile.TemporaryDirectory(prefix="paceline-init-") as name:
        job = _with_run(command, draft, folder, Path(name), may_run, say, seconds)
    job = replace(job, folder=os.path.relpath(folder, path.resolve().parent))
    write_job(path, job)
    return Drafted(path=path, job=job)


def check_draft(drafted: Drafted, *, say: Callable[[str], object]) -> tuple[Drafted, list[tuple[str, Any]]]:
    """Checks a drafted job as `paceline check` does, and tests `workload.resume` if the job has this key.

    If the script does not resume, the job file is written again without `workload.resume`.

    Args:
        drafted: The drafted job file.
        say: Function that is called with lines of text on the progress.

    Returns:
        The drafted job file after the check, and the result of the check as rows of name and value.

    Raises:
        JobError: The job file is not valid.
        ProbeError: The command failed.
        InfeasibleError: No score was read.
    """
    opened = open_job(drafted.path)
    check = check_command(opened, resume=opened.job.can_resume, wait_seconds=RUN_SECONDS, say=say)
    if check.first_score is None:
        raise InfeasibleError(without_score(check, RUN_SECONDS, opened.job.command.metrics))
    if opened.job.can_resume:
        works = {"yes": True, "no:": False}.get(check.resume[:3])
        drafted = replace(drafted, job=replace(drafted.job, resume_works=works))
        write_job(drafted.path, drafted.job)
        if works is False:
            say(f"note: the script does not resume, so workload.resume was removed: {check.resume}")
    return drafted, command_rows(opened, check)


def write_job(path: Path, job: JobDraft) -> None:
    """Writes a drafted job file.

    Raises:
        StorageError: The file cannot be written.
    """
    write_output(path, job.text())


def draft_of(
    line: CommandLine,
    folder: Path,
    say: Callable[[str], object],
    may_run: Callable[[str], bool] = lambda _: False,
) -> Draft:
    """Returns a draft of a job, made from a command's source, help and configuration files.

    Args:
        line: The command, split into launcher, script and arguments.
        folder: Working directory of the command.
        say: Function that is called with lines of text on the progress.
        may_run: Function that is called with a question for the user if the source of the script cannot be
            read; returns whether the script may be run with `--help`.
    """
    source = read_source(line.script_path(folder))
    listed: list[Parameter] = []
    words = (*line.launcher, line.script)
    is_shell = any(Path(word).name in _SHELLS or word.endswith(".sh") for word in words)
    unread = (
        f"The source of {line.script} cannot be read. Run it with --help to read its options? A "
        f"program that does not know --help may start to train:\n  {_help_command(line)}\n"
    )
    may_ask = source.parses_options or (not source.files and may_run(unread))
    if may_ask and not is_shell:
        command = _help_command(line, with_overrides="hydra" in source.text)
        say(f"reading {command}")
        plain = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "PAGER": "cat"}
        run = run_for(command, folder=folder, seconds=_HELP_SECONDS, environment=line.environment | plain)
        text = "\n".join(run.lines)
        listed = options_of_help(text) if is_help(text) else []
        if not listed and run.failed:
            printed = [line.strip() for line in run.lines if line.strip()]
            say(f"note: {command} failed: {printed[-1] if printed else 'it printed nothing'}")
        elif not listed:
            say(f"note: the output of {command} lists no options")
    files = tuple(config_files(line.arguments, folder))
    constants = []
    if source.overrides_globals:
        settings = [folder / word for word in line.arguments if word.endswith(".py")]
        found = [*source.constants, *(one for file in settings for one in constants_in(file))]
        constants = list({one.name: one for one in found}.values())
    listed = [_as_configured(one, files) for one in source.completed(listed or source.options)]
    known = {name for one in (*listed, *constants) for name in (one.name, *one.aliases)}
    known |= {f"--{one.name}" for one in constants}
    parameters = [
        *listed,
        *(one for one in _stated(line) if one.name not in known),
        *(parameter for file in files for parameter in file.parameters()),
        *source.bindings,
        *source.variables,
        *constants,
    ]
    known |= {one.name for one in source.variables}
    parameters += [
        Parameter(name=name, way="variable", default=value, place="your command")
        for name, value in line.environment.items()
        if name not in known
    ]
    if not any("gin" in one.plain_name for one in listed) and "gin" not in source.text:
        parameters = [one for one in parameters if one.way != "gin"]
    roles = roles_of(parameters, given_names(line))
    for role in ("save", "output"):
        if role in roles and _is_input(roles[role], line, folder):
            del roles[role]
    if "resume" in roles and roles["resume"].way not in ("option", "override", "global"):
        del roles["resume"]  # workload.resume is part of a command line
    switch = next((one for one in parameters if one.plain_name == source.resumes_by), None)
    if switch is not None and "resume" not in roles:
        roles["resume"] = replace(switch, fixed="resume")
    return Draft(
        line=line,
        source=source,
        parameters=tuple(parameters),
        roles=roles,
        files=files,
    )


def _as_configured(option: Parameter, files: Sequence[ConfigFile]) -> Parameter:
    """Returns an option, with its value in the command's configuration files as the default, if any."""
    key = option.name.lstrip("-")
    for file in files:
        if key in file.keys:
            number, value = file.keys[key]
            return replace(option, default=value.strip("'\""), place=f"{file.path.name} line {number}")
    return option


def _is_input(parameter: Parameter, line: CommandLine, folder: Path) -> bool:
    """Whether the path in an option for output exists already, so the script may read from it."""
    if parameter.plain_name.rpartition(".")[2] not in MAYBE_INPUTS:
        return False
    text = given_value(line, parameter) or parameter.default
    return bool(text) and (folder / str(text)).exists()


def _stated(line: CommandLine) -> list[Parameter]:
    """Returns the parameters that the command line sets, for scripts whose help does not list them."""
    return [
        Parameter(
            name=name,
            way="option" if name.startswith("-") else "override",
            takes_value=value is not None,
            place="your command",
            joined=joined,
        )
        for name, value, joined in line.stated_options()
    ]


def _help_command(line: CommandLine, *, with_overrides: bool = False) -> str:
    """Returns the command that prints the help of the script, with the subcommands of the command line."""
    subcommands = []
    for word in line.arguments:
        if word.startswith("-"):
            break
        # Hydra composes its configuration from overrides.
        if "=" not in word or with_overrides:
            subcommands.append(word)
    launcher = list(line.launcher)
    if line.kind != "plain":
        launcher = ["python3" if shutil.which("python") is None else "python"]
        if line.launcher[-1:] == ("-m",):
            launcher.append("-m")
    return shlex.join([*launcher, line.script, *subcommands, "--help"])


def _with_run(
    command: str,
    draft: Draft,
    folder: Path,
    passing: Path,
    may_run: Callable[[str], bool],
    say: Callable[[str], object],
    seconds: float,
) -> JobDraft:
    """Runs the command for a short time, if `may_run` allows it, and finds the scores that it reports.

    During this trial run, the options for output and checkpoints point to the temporary folder `passing`.
    """
    places: dict[Role, Path] = {role: passing / role for role in draft.folders()}
    settings = passing / "settings"
    settings.mkdir()
    first = draft.trial_command(places, settings)
    if not may_run(
        f"Run it in this folder for up to {seconds:g} s? It may write files here as usual:\n  {first}\n"
    ):
        return JobDraft(command=command, draft=draft, reading=None, trial=None)
    metrics = passing / "metrics.jsonl"
    if "output" in places:
        places["output"].mkdir()

    def run(line: str) -> TrialRun:
        say(f"running for up to {seconds:g} s: {line}")
        return run_for(
            line,
            folder=folder,
            seconds=seconds,
            environment={"PACELINE_METRICS": str(metrics)},
            watched=(passing,),
            say=say,
        )

    trial = run(first)
    may_lack_folder = "save" in places and not draft.saves_to_file and _NO_PATH.search(trial.error())
    if _failed_early(trial) and may_lack_folder:
        say(f"the command failed:\n{trial.error()}\ntrying again with an output folder that exists")
        places["save"].mkdir(exist_ok=True)
        draft = replace(draft, needs_folder=True)
        trial = run(first)
    if _failed_early(trial) and places and not _NEEDS_MORE.search(trial.error()):
        say(f"the command failed:\n{trial.error()}\ntrying it without the options that Paceline changed")
        again = run(draft.trial_command({}))
        if not again.failed:
            # The command works without the changed options, so these options are not output paths.
            trial, places = again, {}
            roles = {role: one for role, one in draft.roles.items() if role not in ("output", "save")}
            draft = replace(draft, roles=roles)
    if trial.failed:
        say(f"note: the command failed with exit code {trial.exit_code}:\n{trial.error()}")
    if draft.saves_to in places:
        draft = draft.with_saved(places[draft.saves_to], trial.files)
    variables = {places[role]: text for role, text in draft.folders().items() if role in places}
    readings = _readings(draft, trial, folder, variables, metrics)
    reading = readings[0] if readings else None
    if reading is None and trial.failed:
        say(_advice(draft, trial))
    elif reading is None:
        longer = "" if trial.exit_code is not None else "; --wait 5m runs the command for longer"
        say(
            f"note: no score was seen within {trial.seconds:.0f} s{longer}; guesses are marked GUESS in the "
            "job file"
        )
    size = epoch_samples_in(trial.lines) or (None if reading is None else reading.epoch_samples)
    shared = tuple(
        str(path.relative_to(folder))
        for path in trial.files
        if path.is_relative_to(folder) and is_state(path) and draft.source.loads_state
    )
    if shared:
        say(f"note: the run left {', '.join(shared[:3])} in this folder, from which the script may resume")
    return JobDraft(
        command=command, draft=draft, reading=reading, trial=trial, epoch_samples=size, shared=shared
    )


def _failed_early(trial: TrialRun) -> bool:
    return trial.failed and trial.seconds < _EARLY_SECONDS


def _advice(draft: Draft, trial: TrialRun) -> str:
    """Returns advice for the user on a command that failed in the trial run."""
    if _NO_PROGRAM.search(trial.error()) or trial.exit_code == 127:
        program = (*draft.line.launcher, draft.line.script)[0]
        return (
            "note: if the script needs another Python environment, start it with the interpreter of that "
            f"environment instead of {program!r}"
        )
    if _NEEDS_MORE.search(trial.error()):
        return "note: give the whole command in --script, with every option that it needs"
    return "note: give a command in --script that trains when it is run in this folder"


def _readings(
    draft: Draft, trial: TrialRun, folder: Path, variables: Mapping[Path, str], metrics: Path
) -> list[Reading]:
    """Returns all ways to read the scores of a trial run, the best one first.

    Args:
        draft: The draft of the job.
        trial: The lines and files that the trial run wrote.
        folder: Working directory of the command.
        variables: Maps each path that Paceline passed to the command to its text in the job file, such as
            `{checkpoint}`.
        metrics: The file to which `paceline_client` writes its reports.
    """
    written: dict[Path, str] = {}
    for path in trial.files:
        place = next((place for place in variables if path.is_relative_to(place)), None)
        if place is not None:
            written[path] = f"{variables[place]}/{path.relative_to(place)}"
        elif path.is_relative_to(folder):
            written[path] = str(path.relative_to(folder))
    # A job file cannot contain names with unprintable characters.
    written = {path: text for path, text in written.items() if text.isprintable()}
    found = [*read_output(trial.lines, draft.batch_size), *read_files(written), *read_reports(metrics)]
    return sorted(found, key=lambda one: one.rank)
