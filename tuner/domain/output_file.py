"""Writes the files that commands create for the user, such as reports, job files and launch files."""

from __future__ import annotations

import contextlib
import os
import stat
import tempfile
from pathlib import Path

from tuner.domain.errors import JobError, StorageError

#: Modes of a file that everybody may read, of a script, and of a file with values that are not published.
READABLE, EXECUTABLE, PRIVATE = 0o644, 0o755, 0o600

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def write_output(path: Path, content: str | bytes, *, mode: int = READABLE) -> None:
    """Writes a file atomically: an existing file is replaced only after all data are on disk.

    Args:
        path: Path of the file.
        content: The complete content; text is written in UTF-8.
        mode: Permissions of a new file, before the umask is applied. A file that is replaced keeps its
            permissions, unless the mode is `PRIVATE`.

    Raises:
        StorageError: The path is not a regular file, or the file cannot be written.
    """
    check_replaceable(path)
    data = content.encode("utf-8", errors="backslashreplace") if isinstance(content, str) else content
    try:
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:200]}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(_permissions(path, mode))
            temporary.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise unwritable(path, error) from error


def _permissions(path: Path, mode: int) -> int:
    if mode == PRIVATE:
        return PRIVATE
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return mode & ~umask


def check_replaceable(path: Path) -> None:
    """Checks that a path is free or a regular file; links are not followed.

    Raises:
        StorageError: The path is a folder, symbolic link, device, FIFO or socket, or cannot be examined.
    """
    try:
        kind = stat.S_IFMT(path.lstat().st_mode)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise unwritable(path, error) from error
    if kind != stat.S_IFREG:
        raise StorageError(
            f"{path} cannot be written: it is {_KINDS.get(kind, 'no file')}, and Paceline replaces only "
            "regular files; choose another path"
        )


def check_free(path: Path, *, force: bool | None, makes_folder: bool = False) -> None:
    """Checks, before any work, that a file can be created.

    Args:
        path: Path of the file.
        force: Whether the user allowed to overwrite the file with `--force`; None if the command does not
            have this option.
        makes_folder: Whether the command creates the folder of the file if it does not exist.

    Raises:
        JobError: The file exists and must not be overwritten.
        StorageError: The path is not a regular file, or its folder does not exist.
    """
    check_replaceable(path)
    if path.exists() and not force:
        overwrite = "" if force is None else ", or --force to overwrite it"
        raise JobError(f"{path} already exists; give another path{overwrite}")
    if not makes_folder and not path.resolve().parent.is_dir():
        raise StorageError(f"{path} cannot be written: there is no folder {path.parent}; choose another path")


def unwritable(path: Path, error: Exception) -> StorageError:
    """Returns the error for a file or folder that cannot be written."""
    reason = getattr(error, "strerror", None) or error
    return StorageError(f"{path} cannot be written: {reason}; free disk space or choose another path")
