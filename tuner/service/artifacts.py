"""Where workers put the output of submitted jobs: a shared folder, a local folder, or a URL such as S3."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path


class Artifacts(ABC):
    """The place of the output folders of submitted jobs.

    A worker calls `fetch` before it continues a job that another worker may have run, and `after_slice`
    after each slice (part of a probe).
    """

    @abstractmethod
    def output_folder(self, job_id: int) -> Path:
        """Returns the output folder of a job on this host. It need not exist."""

    def fetch(self, folder: Path) -> bool:
        """Brings the newest stored files of a folder to this host.

        Args:
            folder: A folder below the output folder of a job, such as that of a probe. Afterwards it has
                exactly the stored files.

        Returns:
            Whether there are stored files. If not, nothing was changed.

        Raises:
            StorageError: The files cannot be read or written.
        """
        return folder.is_dir()

    def after_slice(self, folder: Path) -> None:
        """Stores the present files of a folder, such as that of a probe.

        If a process is killed meanwhile, the files that were stored before can still be fetched.

        Raises:
            StorageError: The files cannot be read or stored.
        """
        return


class FolderArtifacts(Artifacts):
    """A folder of this host, which all workers may share.

    Args:
        root: The folder; the output folder of job 7 is `jobs/7` in it.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()

    def output_folder(self, job_id: int) -> Path:
        return self._root / "jobs" / str(job_id)
