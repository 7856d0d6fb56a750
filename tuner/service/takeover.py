"""Lets another worker continue a job: stores the files of probes after each slice, and restores them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from search_spaces import Configuration
from tuner.domain.errors import JobError, StorageError
from tuner.domain.ledger import Ledger, StudyRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.probes import Prober
from tuner.probes.commands.slice_curve import rebuild_records
from tuner.probes.probe_folder import METRICS_FILE
from tuner.probes.prober import ProbeHandle, Until
from tuner.probes.slice_plan import OWN_FILES
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.lost_checkpoints import is_lost
from tuner.search.lost_slices import probe_folder
from tuner.service.artifacts import Artifacts, FolderArtifacts


def open_artifacts(place: str | None, local: Path, *, attempt: int) -> Artifacts:
    """Returns the place of the output folders of a worker's jobs.

    Args:
        place: A folder that all workers share, or a URL of fsspec such as `s3://bucket/paceline`; None for
            the local folder of the worker.
        local: Local folder of the worker, for the output of jobs without a shared folder.
        attempt: Number of the attempt of the job (`JobLease.attempt`). What an older attempt stores later is
            not fetched.

    Raises:
        JobError: The package for the URL is not installed, or the URL is not valid.
    """
    if place is None:
        return FolderArtifacts(local)
    if "://" not in place:
        return FolderArtifacts(Path(place))
    try:
        from tuner.service.remote_artifacts import RemoteArtifacts

        return RemoteArtifacts(place, local, attempt=attempt)
    except (ImportError, ValueError) as error:
        raise JobError(
            f"--artifacts {place}: {error}; install `paceline[artifacts]` and the package for this kind of "
            "URL, such as s3fs for s3://"
        ) from error


def restore(
    artifacts: Artifacts, ledger: Ledger, study: StudyRecord, output: Path, listen: Listener = ignore
) -> None:
    """Brings the files of all probes that can continue to this host, before a job is continued.

    A probe whose checkpoint is not stored anywhere starts from the beginning in its next slice
    (`RunOptions.restart_lost`); this function says so.

    Args:
        artifacts: Where the files are.
        ledger: The database of studies.
        study: The study of the job.
        output: The output folder of the job on this host.
        listen: Function that is called with a warning for each probe whose checkpoint is lost.

    Raises:
        StorageError: The files cannot be read or written.
    """
    # The folder of all probes has what was learnt about the script.
    artifacts.fetch(probe_folder(output, study, 0).parent)
    runs_command = _runs_command(study)
    for probe in ledger.probes(study.study_id):
        measured = probe.measurement
        if measured is None or not measured.samples or not probe.outcome.can_continue:
            continue
        if measured.checkpoint is None and not runs_command:
            continue
        folder = probe_folder(output, study, probe.probe_id)
        artifacts.fetch(folder)
        if not _is_elsewhere(measured, folder):
            continue
        if runs_command and not (folder / METRICS_FILE).exists():
            # The next slice then counts what it repeats.
            rebuild_records(folder, measured)
        what = "its files are" if measured.checkpoint is None else "its checkpoint is"
        words = (
            f"{probe.name}: {what} on another host, so its next slice starts from "
            "the beginning; give all workers the same --artifacts to avoid this"
        )
        listen(SearchEvent(kind="warning", text=words, probe_id=probe.probe_id))


def _is_elsewhere(measured: Measurement, folder: Path) -> bool:
    """Whether the files of a training are neither in the folder of its probe nor where they were saved."""
    if measured.checkpoint is None:
        return not (folder / METRICS_FILE).exists()
    return is_lost(measured, folder, without=OWN_FILES) and not Path(measured.checkpoint).exists()


def _runs_command(study: StudyRecord) -> bool:
    """Whether the study's job runs a command, instead of a Workload or the replay of a recording."""
    job = study.job
    is_replay = (job.get("probe") or {}).get("recording") is not None
    return "command" in (job.get("workload") or {}) and not is_replay


class SyncedProber(Prober):
    """Prober that stores the files of a probe after each slice, in the background.

    Args:
        prober: Runs the slices; `close` closes it.
        artifacts: Where the files are stored.
        listen: Function that is called with a warning if files cannot be stored. The search continues, since
            the files are needed only if another worker takes over.
    """

    def __init__(self, prober: Prober, artifacts: Artifacts, listen: Listener = ignore) -> None:
        self._prober, self._artifacts, self._listen = prober, artifacts, listen
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="artifacts")
        self._storing: list[Future[None]] = []
        self._ended: set[str] = set()

    def start(
        self, configuration: Configuration, purpose: Purpose, until: Until, folder: Path
    ) -> ProbeHandle:
        return self._prober.start(configuration, purpose, until, folder)

    def poll(self, handle: ProbeHandle) -> Measurement:
        measurement = self._prober.poll(handle)
        if measurement.outcome is not Outcome.RUNNING:
            self._store(handle)
        self._warn()
        return measurement

    def cancel(self, handle: ProbeHandle) -> None:
        self._prober.cancel(handle)
        self._store(handle)

    def ask_to_end(self, handle: ProbeHandle) -> float | None:
        return self._prober.ask_to_end(handle)

    def end_orphans(self, folder: Path) -> None:
        self._prober.end_orphans(folder)

    def now(self) -> float:
        return self._prober.now()

    def close(self) -> None:
        self._prober.close()
        self._thread.shutdown(wait=True)
        self._warn()

    def _store(self, handle: ProbeHandle) -> None:
        if handle.identity in self._ended:
            return
        self._ended.add(handle.identity)
        # The folder of all probes has what was learnt about the script.
        for folder in (handle.folder, handle.folder.parent):
            self._storing.append(self._thread.submit(self._artifacts.after_slice, folder))

    def _warn(self) -> None:
        for stored in [future for future in self._storing if future.done()]:
            self._storing.remove(stored)
            error = stored.exception()
            if isinstance(error, StorageError):
                self._listen(SearchEvent(kind="warning", text=str(error)))
            elif error is not None:
                raise error


def synced(
    make_prober: Callable[..., Prober], artifacts: Artifacts, listen: Listener
) -> Callable[..., Prober]:
    """Returns a function that makes probers as `make_prober` does, which also store the files of probes."""
    return lambda opened: SyncedProber(make_prober(opened), artifacts, listen)
