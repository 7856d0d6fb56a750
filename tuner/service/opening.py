"""Opens a job file, the job's study in the database, and the job's output folder."""

from __future__ import annotations

import contextlib
import os
import platform
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import ValidationError

from tuner.domain.cluster import Cluster
from tuner.domain.errors import DataNotFoundError, JobError, StorageError
from tuner.domain.ledger import Lease, Ledger, ProbeRecord, StudyRecord
from tuner.domain.measurement import Outcome
from tuner.domain.outcomes import OutcomeStore
from tuner.job import BudgetSection, Job, load_job, load_workload, script_digest, workload_code_digest
from tuner.recordings.recording import NEUTRAL_EPOCH_SAMPLES
from tuner.search.events import Listener, SearchEvent, Watcher, ignore, unwatched
from tuner.search.interrupts import Interruption
from tuner.search.lost_slices import lost_slice, lost_span, note_charged, probe_folder
from tuner.search.spans import Span, covered
from tuner.service.attempt import Attempt, is_dead

if TYPE_CHECKING:
    import optuna

    from tuner.domain.workload import Workload


#: Maps each key of [budget] to the command-line flag that replaces its value.
_FLAGS = {"time": "--budget", "dollars": "--max-dollars"}


@dataclass(frozen=True, kw_only=True)
class OpenedJob:
    """A job that was read from its file.

    Args:
        job: The content of the job file.
        path: Path of the job file.
        fingerprint: Hash of all settings that change learning curves or step times (`Job.fingerprint`).
            Studies with another fingerprint are not resumed.
        code: Hash of the script or of the Workload's source; empty if the job has neither.
        attempt: The attempt of a worker at this job; None on the command line.
        past_studies: Whether the forecasts use what other studies in the database have learnt.
        watch: Called with the state of the search on the command line, as `SearchContext.watch`.
        interruption: Whether the user of the command line has asked the search to end early.
        stated_budget: The budget in the job file if an option or environment variable replaced a part of it;
            otherwise None.
    """

    job: Job
    path: Path
    fingerprint: str
    code: str = ""
    attempt: Attempt | None = None
    past_studies: bool = True
    watch: Watcher = unwatched
    interruption: Interruption = field(default_factory=Interruption)
    stated_budget: BudgetSection | None = None

    def saves(self) -> bool:
        """Whether slices may save a checkpoint when the search is interrupted, as on a worker."""
        return self.attempt is not None and self.attempt.saves()

    @property
    def folder(self) -> Path:
        """Folder of the job file. Paths in the job file are relative to this folder."""
        return self.path.resolve().parent

    @property
    def cluster(self) -> Cluster:
        """The cluster that the job describes."""
        return self.job.resolved_cluster()


def open_job(path: Path, *, time_budget: str | None = None, max_dollars: float | None = None) -> OpenedJob:
    """Reads and checks a job file, and hides the database URL from the scripts of the job.

    Args:
        path: Path of the job file.
        time_budget: Replaces `budget.time`, such as `10m`; None to use the file's value.
        max_dollars: Replaces `budget.dollars`; None to use the file's value.

    Raises:
        JobError: The file is not a valid job. The message names each faulty key.
        InfeasibleError: No configuration of its space can be run.
    """
    protect_storage_url()
    job = load_job(path)
    given = {"time": time_budget, "dollars": max_dollars}
    given = {key: value for key, value in given.items() if value is not None}
    stated = job.budget if given else None
    if given:
        job = _with_budget(job, given)
    code = _code_digest(job, path.resolve().parent)
    fingerprint = job.fingerprint(code, hardware())
    return OpenedJob(job=job, path=path, fingerprint=fingerprint, code=code, stated_budget=stated)


def protect_storage_url() -> None:
    """Removes `PACELINE_STORAGE`, which can contain a password, from the environment that scripts inherit."""
    os.environ.pop("PACELINE_STORAGE", None)


def _code_digest(job: Job, folder: Path) -> str:
    if job.runs_command:
        return script_digest(job.command, folder)
    return "" if job.workload is None else workload_code_digest(job.trained.path, folder)


def _with_budget(job: Job, given: dict[str, Any]) -> Job:
    """Returns the job with its budget replaced by values from flags or environment variables."""
    # Keys that are not in the file stay unset, so their defaults apply.
    stated = job.model_dump(mode="json", exclude_unset=True)
    merged = {**stated, "budget": {**stated.get("budget", {}), **given}}
    try:
        return Job.model_validate(merged)
    except ValidationError as error:
        problem = error.errors()[0]
        words = str(problem["msg"]).removeprefix("Value error, ")
        flags = " and ".join(f"{_FLAGS[key]} = {value}" for key, value in given.items())
        raise JobError(f"{flags} (flag or environment variable): {words}") from error


def hardware() -> str:
    """Describes the hardware of this host in words: processor, cores, memory in GiB, NVIDIA devices."""
    model = platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    except OSError:
        pass
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    words = f"{model}, {len(os.sched_getaffinity(0))} cores, {gibibytes:.0f} GiB"
    return ", ".join([words, *_accelerators()])


def _accelerators(folder: Path = Path("/proc/driver/nvidia/gpus")) -> list[str]:
    """Returns the model names of the NVIDIA devices, read from the driver's files without importing torch.

    The value of CUDA_VISIBLE_DEVICES is added if it is set, because step times depend on it.
    """
    found = []
    for path in sorted(folder.glob("*/information")):
        with contextlib.suppress(OSError):
            lines = path.read_text().splitlines()
            found += [line.partition(":")[2].strip() for line in lines if line.startswith("Model:")]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if found and visible is not None:
        found.append(f"CUDA_VISIBLE_DEVICES={visible}")
    return found


def default_storage_url(job_path: Path) -> str:
    """Returns the URL of the SQLite file `paceline.db` in the folder of the job, which its jobs share."""
    return f"sqlite:///{job_path.resolve().parent / 'paceline.db'}"


def default_output(job: Job) -> Path:
    """Returns the default output folder, `paceline-out/NAME` in the current folder."""
    return Path("paceline-out") / job.name


def prepare_output(folder: Path) -> Path:
    """Creates the output folder and checks that files can be written to it, before the first probe.

    Raises:
        StorageError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        in_the_way = next((p for p in (folder, *folder.parents) if p.exists() and not p.is_dir()), None)
        reason = f"{in_the_way} is a file" if in_the_way else error.strerror or str(error)
        raise StorageError(
            f"the output folder {folder} cannot be written: {reason}; choose another one with --output"
        ) from error
    return folder.resolve()


def checked_workload(opened: OpenedJob) -> tuple[Workload, int]:
    """Builds the Workload and loads its data once, so errors in them appear before the first probe.

    Returns:
        The Workload and the number of samples in its training set.

    Raises:
        JobError: The Workload cannot be built, or has no training data.
        DataNotFoundError: The data are not on this host.
    """
    if opened.job.runs_command:
        raise JobError(
            f"{opened.path}: the job runs a command, but this use of Paceline needs a Workload "
            "(workload.path), whose model and data Paceline can build"
        )
    workload = load_workload(opened.job, opened.folder)
    try:
        data = workload.training_data()
        workload.validation_data()
        size = len(data)  # type: ignore[arg-type]
    except DataNotFoundError:
        raise
    except Exception as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        remedy = f"; install the package that provides {missing}" if missing else ""
        raise JobError(
            f"{opened.path}: workload.path: {opened.job.trained.path} cannot load its data: "
            f"{type(error).__name__}: {error}{remedy}"
        ) from error
    if size < 1:
        raise JobError(f"{opened.path}: workload.path: the training data are empty")
    return workload, size


def checked_epoch_samples(opened: OpenedJob) -> int:
    """Returns the number of samples in the training set.

    - Job with a Workload: builds the Workload and counts its training data.
    - Job with a command: `workload.epoch_samples`, or `NEUTRAL_EPOCH_SAMPLES` (a typical number) if the job
      file does not set this key.
    - Job that replays a recording: `NEUTRAL_EPOCH_SAMPLES`.

    Raises:
        JobError: The workload cannot be built, or has no training data.
        DataNotFoundError: The data are not on this host.
    """
    if opened.job.recording() is not None:
        return NEUTRAL_EPOCH_SAMPLES
    if opened.job.runs_command:
        return opened.job.command.epoch_samples or NEUTRAL_EPOCH_SAMPLES
    return checked_workload(opened)[1]


def require_training(opened: OpenedJob) -> None:
    """Checks that a job can train, and does not replay a recording.

    Raises:
        JobError: The job replays a recording.
    """
    if opened.job.recording() is not None:
        raise JobError(
            f"{opened.path}: a recorded job replays measured runs and cannot train. Use the job that the "
            "recording was made with, or set [workload] and [space] instead of probe.recording"
        )


def changed_words(job: Job) -> str:
    """Returns a sentence with the reason why older studies of a job cannot be resumed."""
    what = "the workload's code or parameters, the seed, the cluster or this machine"
    if job.runs_command:
        what = "the command, its script, the seed, the cluster or this machine"
    if job.recording() is not None:
        what = "the recording"
    return f"{what} changed since the last study of {job.name}, so its curves are no longer valid"


def has_other_study(ledger: Ledger, opened: OpenedJob) -> bool:
    """Whether the database has a study with the job's name, but another fingerprint than the job."""
    return any(
        study.job_name == opened.job.name and study.fingerprint != opened.fingerprint
        for study in ledger.studies()
    )


def find_study(ledger: Ledger, opened: OpenedJob) -> StudyRecord | None:
    """Returns the newest study with the name and fingerprint of a job; None before the first run."""
    found = [
        study
        for study in ledger.studies()
        if study.job_name == opened.job.name and study.fingerprint == opened.fingerprint
    ]
    return found[-1] if found else None


def resumed_study(ledger: Ledger, opened: OpenedJob) -> StudyRecord | None:
    """Returns the study that a run of the job resumes unless it starts a new one; None if there is none."""
    if opened.attempt is None:
        return find_study(ledger, opened)
    return next((s for s in ledger.studies() if s.study_id == opened.attempt.study_id), None)


def open_study(
    ledger: Ledger, opened: OpenedJob, output: Path, *, fresh: bool = False, listen: Listener = ignore
) -> StudyRecord:
    """Opens or creates the study of a job, and releases the leases of processes that were killed.

    A lease is the time-limited right of one process to work on a probe. If the script or the command changed
    since the newest study with the job's name, a new study is created. But if the newest study has no
    measurements, it continues, and its probes start from the beginning.

    Args:
        ledger: The database of studies.
        opened: The job.
        output: The output folder of the job.
        fresh: Whether to create a new study in any case.
        listen: Function that is called with warnings about older studies and about lost slices.

    Raises:
        StorageError: Another process is working on the study.
    """
    if opened.attempt is not None:
        return _study_of_attempt(ledger, opened, opened.attempt, output, listen)
    job, unmeasured = opened.job, None
    if not fresh and find_study(ledger, opened) is None and has_other_study(ledger, opened):
        unmeasured = _unmeasured_study(ledger, job.name)
        what = "starting a new study"
        if unmeasured is not None:
            ledger.change_fingerprint(unmeasured.study_id, opened.fingerprint)
            what = f"study {unmeasured.name} has no measurements and continues with the present job"
        listen(SearchEvent(kind="warning", text=f"{changed_words(job)}: {what}"))
    study = ledger.open_study(job.name, opened.fingerprint, job.published(), fresh=fresh)
    free_leases_of_the_dead(ledger, study, output, opened.cluster, listen)
    if unmeasured is not None:
        for probe in ledger.probes(study.study_id):
            # The folder of the probe may contain a checkpoint of the old script.
            ledger.end_probe(probe.probe_id, Outcome.STOPPED, "the job changed before anything was measured")
    return study


def _study_of_attempt(
    ledger: Ledger, opened: OpenedJob, attempt: Attempt, output: Path, listen: Listener
) -> StudyRecord:
    """Returns the study of a submitted job: a new one at first, and the same one in all later attempts."""
    if attempt.study_id is None:
        study = ledger.open_study(opened.job.name, opened.fingerprint, opened.job.published(), fresh=True)
        attempt.set_study(study.study_id)
        return study
    study = next(study for study in ledger.studies() if study.study_id == attempt.study_id)
    if study.fingerprint != opened.fingerprint:
        words = (
            "this worker differs from the one that started the study, for example in its hardware or its "
            "files; the study continues, but its times may be those of different machines"
        )
        listen(SearchEvent(kind="warning", text=words))
    attempt.restore(study, listen)
    free_leases_of_the_dead(ledger, study, output, opened.cluster, listen, attempt=attempt)
    return study


def _unmeasured_study(ledger: Ledger, job_name: str) -> StudyRecord | None:
    """Returns the newest study of a job's name if the study has no measurements and no process uses it."""
    newest = [study for study in ledger.studies() if study.job_name == job_name][-1]
    for probe in ledger.probes(newest.study_id):
        is_held = probe.lease is not None and abandoned_lease(probe) is None
        # An interrupted slice may have measured scores or step times even if its probe counts as not tried.
        has_shown = any(m.curve or m.ranks for m in probe.slices)
        if is_held or has_shown or probe.was_tried or not probe.outcome.can_continue:
            return None
    return newest


class StudyStore(OutcomeStore, Protocol):
    """A database of Paceline's studies and their Optuna studies, such as `storage.Storage`."""

    @property
    def ledger(self) -> Ledger:
        """The ledger: the tables of Paceline's studies, probes and recommendations."""

    @property
    def url(self) -> str:
        """URL of the database, with the password hidden."""

    def optuna_storage(self) -> optuna.storages.BaseStorage:
        """Optuna's storage object for the Optuna studies in the same database."""

    def guarded(self) -> AbstractContextManager[None]:
        """Context manager that turns errors of the database into `StorageError`."""


def abandoned_lease(probe: ProbeRecord, attempt: Attempt | None = None) -> Lease | None:
    """Returns the lease of a probe if the process that owns the lease was killed, else None.

    A lease is the time-limited right of one process to work on a probe. A process counts as killed if its
    lease has expired, or if it ran on this host and has ended. A worker that has taken over a job also
    releases the leases of earlier attempts at the job, since these may not change the study any more.

    Args:
        probe: The probe.
        attempt: The attempt of a worker at the job of the probe; None on the command line.
    """
    if probe.lease is not None:
        owner = probe.lease.owner
        if is_dead(owner) or (attempt is not None and attempt.is_later_than(owner)):
            return probe.lease
    return probe.expired_lease


def free_leases_of_the_dead(
    ledger: Ledger,
    study: StudyRecord,
    output: Path,
    cluster: Cluster,
    listen: Listener = ignore,
    *,
    attempt: Attempt | None = None,
) -> None:
    """Releases the leases of killed processes, and charges the slices that were lost with these processes.

    A lease is the right of one process to work on a probe. A slice is lost if its measurement was not stored.

    Args:
        ledger: The database of studies.
        study: The study whose leases are checked.
        output: The output folder of the job, whose files show how long each lost slice ran.
        cluster: The cluster of the job, for the price of each lost slice.
        listen: Function that is called with a warning for each lost slice.
        attempt: The attempt of a worker at the job; None on the command line.

    Raises:
        StorageError: Another process is working on the study.
    """
    spans: list[Span] = []
    for probe in ledger.probes(study.study_id):
        lease = abandoned_lease(probe, attempt)
        if lease is not None:
            folder = probe_folder(output, study, probe.probe_id)
            span = lost_span(folder, lease)
            if attempt is not None and covered([span]) == 0.0:
                # The slice may have run on another host, whose files cannot be read here.
                span = attempt.reported_span(lease)
            if covered([span]) > 0.0:
                lost = lost_slice(probe, span, spans, cluster)
                ledger.append_slice(lease, lost)
                note_charged(folder)
                spans.append(span)
                words = f"{probe.name}: {lost.error}; the time of this slice is charged"
                listen(SearchEvent(kind="warning", text=words))
            ledger.release(lease)
        elif probe.lease is not None:
            raise StorageError(
                f"study {study.name} is in use by {probe.lease.owner.rsplit(':', 2)[0]}; "
                "wait until that process ends, or start another study with --fresh"
            )
