"""Prepares the command of a slice: its variables, environment, folders, and the sources of its reports."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tuner.domain.measurement import CurvePoint
from tuner.job import (
    Job,
    Template,
    rendered_command,
    rendered_environment,
    variable_name,
    written,
)
from tuner.job import stated_values as stated
from tuner.launchers import CommandTask, LogFile, OnePer, trim_file
from tuner.launchers.containers import Container, contained, container_runtime
from tuner.probes.commands.json_source import JsonSource
from tuner.probes.commands.metric_source import MetricSource, SourceContext, open_source
from tuner.probes.commands.positions import Positions
from tuner.probes.commands.progress_line import LineForm
from tuner.probes.commands.run_clock import ReadPoint
from tuner.probes.commands.script_habits import ScriptHabits
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, SlicePlan

#: Name of the file or folder to which the script saves its checkpoint. It is in the folder that is copied
#: when another probe resumes the run.
CHECKPOINT_NAME = "checkpoint"
SLICES_FOLDER = "slices"
#: Path of the module `paceline_client`, with which scripts report. A copy is put into a folder on the import
#: path of the script, so the script cannot import other modules of Paceline by accident.
CLIENT_FILE = Path(__file__).resolve().parents[3] / "paceline_client.py"
#: Matches commands with a program that may restart the script from its checkpoint.
_RESTARTS = re.compile(r"torchrun|torch\.distributed|accelerate\s+launch|max[_-]restarts|deepspeed|composer")


@dataclass(frozen=True, kw_only=True)
class CommandPlan:
    """Plan of one job of a slice (part of a run). If a job loses its nodes, the slice needs another job.

    Args:
        plan: Configuration, limits and folders of the slice.
        known: Training progress of the run before the slice, to which the limits of the slice are added.
        folder: Folder for the files of this job: its command, variables and reports.
        resumes: Whether the script resumes from its checkpoint.
        scored_samples: Number of samples processed at the last score before this job; only later scores are
            new.
    """

    plan: SlicePlan
    known: ReadPoint
    folder: Path
    resumes: bool
    scored_samples: int = 0

    @property
    def metrics_file(self) -> Path:
        """Path of the file to which the script writes its reports as lines of JSON, `$PACELINE_METRICS`."""
        return self.folder / "metrics.jsonl"

    @property
    def stop_file(self) -> Path:
        """Path of the file that the prober creates to ask the script to stop."""
        return self.folder / "stop"

    @property
    def checkpoint(self) -> Path:
        """Path of the file or folder to which the script saves its checkpoint."""
        return checkpoint_of(self.plan.folder)

    def values(self) -> dict[str, object]:
        """Returns the values of the template variables in the job's command, by name.

        Variables that differ between nodes, such as the rank, are not included.
        """
        plan, until = self.plan, self.plan.until
        until_steps = None if until.steps is None else self.known.step + until.steps
        return {
            **stated(plan.job, plan.configuration),
            "checkpoint": self.checkpoint,
            "metrics": self.metrics_file,
            "values": self.folder / "values.json",
            "output_folder": plan.folder / "output",
            "until_samples": "" if until.samples is None else until.samples,
            "until_steps": "" if until_steps is None else until_steps,
            "until_seconds": "" if until.training_seconds is None else until.training_seconds,
            "until_scores": "" if until.scores is None else until.scores,
            "scored_samples": self.scored_samples,
        }

    def prepare(self) -> CommandTask:
        """Creates the folders and files that the script needs; returns the task to launch.

        Raises:
            OSError: A folder or file cannot be created.
            JobError: No program that runs containers is installed.
        """
        plan, section = self.plan, self.plan.job.command
        values = self.values()
        for folder in (self.folder, self.checkpoint.parent, plan.folder / "output", self._client_folder):
            folder.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(CLIENT_FILE, self._client_folder / CLIENT_FILE.name)
        plain = {
            name: value if isinstance(value, int | float) else str(value) for name, value in values.items()
        }
        (self.folder / "values.json").write_text(json.dumps(plain, indent=1) + "\n")
        self.stop_file.unlink(missing_ok=True)
        command = rendered_command(plan.job, values, resumes=self.resumes)
        (self.folder / "command.sh").write_text(command + "\n")
        environment = self._environment(values)
        working_folder = (plan.job_folder / section.folder).resolve()
        if (image := plan.job.cluster.image) is not None:
            container = Container(
                image=image,
                runtime=container_runtime(plan.job.cluster.container, plan.job.cluster.launcher),
                folders=(plan.job_folder, working_folder, plan.folder),
                working_folder=working_folder,
                variables=tuple(environment),
                task_folder=self.folder,
                grace_seconds=section.grace,
            )
            command = contained(command, container)
        return CommandTask(
            command=command,
            one_per=OnePer(section.one_per),
            environment=environment,
            working_folder=working_folder,
            folder=self.folder,
            grace_seconds=section.grace,
        )

    def trim_reports(self) -> None:
        """Shortens the file of reports to its first MiB and its last four MiB."""
        trim_file(self.metrics_file, note='{"event": "left_out", "bytes": %d}')

    def sources(
        self, log_files: Callable[[], Mapping[int, LogFile]]
    ) -> tuple[MetricSource, JsonSource | None]:
        """Creates the sources of the script's reports.

        Args:
            log_files: Function that returns the log file of each process of the launcher, by node or rank.

        Returns:
            The source of scores and training progress, and the source of other events that
            `paceline_client` reports, such as gradient noise. The second is None if the first source reads
            these events too.
        """
        context = SourceContext(
            metrics=self.plan.job.command.metrics,
            metrics_file=self.metrics_file,
            path_of=self._path_of,
            log_files=log_files,
        )
        if context.metrics.source == "json" and context.paths in ([], [self.metrics_file]):
            return JsonSource.open(context), None
        return open_source(context), JsonSource(LineForm(metrics=context.metrics), self.metrics_file)

    def positions(self, habits: ScriptHabits, earlier: Sequence[CurvePoint], started_at: float) -> Positions:
        """Creates the object that computes the training progress (steps, samples) at each line of the script.

        Args:
            habits: Facts found in all runs about how the script reports.
            earlier: Scores of the earlier slices of the run, in order.
            started_at: Time on the prober's monotonic clock when the script was started, seconds.
        """
        job, section = self.plan.job, self.plan.job.command
        if section.metrics.first_epoch is not None:
            habits.first_epoch = section.metrics.first_epoch
        if job.is_remote:
            # The API defines the clock of a trainer, so its unit need not be found by comparison.
            habits.clock, habits.clock_unit = "since the beginning", 1.0
        return Positions(
            habits,
            job.goal,
            batch_size=self.plan.configuration.batch_size,
            epoch_samples=section.epoch_samples,
            known=self.known,
            earlier=earlier,
            started_at=started_at,
            resumes=self.resumes,
            may_restart=_RESTARTS.search(section.command) is not None,
        )

    def _path_of(self, text: str) -> Path:
        folder = (self.plan.job_folder / self.plan.job.command.folder).resolve()
        return folder / Template(text).rendered(self.values(), for_shell=False)

    @property
    def _client_folder(self) -> Path:
        return self.plan.folder / "client"

    def _environment(self, values: Mapping[str, object]) -> dict[str, str]:
        stated_here = rendered_environment(self.plan.job, values)
        environment = {variable_name(name): written(value) for name, value in values.items()}
        environment |= {
            "PACELINE_PURPOSE": self.plan.purpose.value,
            "PACELINE_RESUMED": "1" if self.resumes else "",
            "PACELINE_STOP_FILE": str(self.stop_file),
            # The output is read while the script runs, so it must not be buffered.
            "PYTHONUNBUFFERED": "1",
        }
        path = stated_here.pop("PYTHONPATH", None) or _import_path()
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self._client_folder), path)))
        return environment | stated_here


def checkpoint_of(probe_folder: Path) -> Path:
    """Returns the path of the file or folder to which the script of a probe saves its checkpoint."""
    return probe_folder / CHECKPOINTS_FOLDER / CHECKPOINT_NAME


def can_go_on(job: Job, probe_folder: Path) -> bool:
    """Whether the script of a probe can resume and has saved a checkpoint."""
    return job.can_resume and checkpoint_of(probe_folder).exists()


def _import_path() -> str:
    """Returns the `PYTHONPATH` of the user, without the folder of Paceline, for the script."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(
        entry for entry in entries if entry and Path(entry).resolve() != CLIENT_FILE.parent
    )
