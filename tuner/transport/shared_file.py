"""A file in memory that the processes of one host map, and that disappears with the last of them."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path
from typing import Final

from tuner.domain.errors import StorageError


class SharedFile:
    """A file without a name, mapped as a whole.

    On Linux it never has a name (memfd_create(2)): it disappears with the last process that has it open,
    however that one ends. Elsewhere it is a temporary file whose name `forget_name` removes.

    The file is sparse: whoever writes to a stretch of it first `reserve`s that. A store into memory that
    the system cannot give would otherwise end the process by a SIGBUS, without a word.

    There is no `munmap`: the memory is freed with its last view, so that a tensor that is still in use after
    `close` stays valid.

    Args:
        descriptor: The open file, which this takes over.
        place: The path by which other processes open it.
        name: Its name, where it has one.
    """

    def __init__(self, descriptor: int, place: str, name: Path | None = None) -> None:
        self.place: Final = place
        self._name = name
        self._descriptor: int | None = descriptor
        self._map: mmap.mmap | None = mmap.mmap(descriptor, os.fstat(descriptor).st_size)

    @classmethod
    def create(cls, num_bytes: int) -> SharedFile:
        """Makes one.

        Raises:
            StorageError: The system has not enough memory.
        """
        name = None
        try:
            if hasattr(os, "memfd_create"):
                descriptor = os.memfd_create("paceline", os.MFD_CLOEXEC)
                place = f"/proc/{os.getpid()}/fd/{descriptor}"
            else:
                descriptor, place = tempfile.mkstemp(prefix="paceline-")
                name = Path(place)
            try:
                os.ftruncate(descriptor, num_bytes)
                return cls(descriptor, place, name)
            except BaseException:
                os.close(descriptor)
                if name is not None:
                    name.unlink()
                raise
        except OSError as error:
            raise StorageError(
                f"No memory of {num_bytes} bytes can be shared among the ranks: {error}"
            ) from error

    @classmethod
    def open(cls, place: str) -> SharedFile:
        """Opens another process's; it must still have it.

        Raises:
            StorageError: It cannot be opened from here.
        """
        try:
            descriptor = os.open(place, os.O_RDWR | os.O_CLOEXEC)
            try:
                return cls(descriptor, place)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as error:
            raise StorageError(
                f"The memory that the ranks of this host share cannot be opened ({error}). They must run as "
                "one user and see each other's processes: in separate containers, pass vectors by messages"
            ) from error

    @property
    def memory(self) -> mmap.mmap:
        """The whole of it."""
        assert self._map is not None, "the file is closed"
        return self._map

    def reserve(self, offset_bytes: int, num_bytes: int) -> None:
        """Has the system set memory aside for a stretch; what is in it stays.

        Raises:
            StorageError: There is not enough.
        """
        assert self._descriptor is not None, "the file is closed"
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, offset_bytes, num_bytes)
            else:
                os.pwrite(self._descriptor, os.pread(self._descriptor, num_bytes, offset_bytes), offset_bytes)
        except OSError as error:
            raise StorageError(
                f"There is no memory left for {num_bytes} bytes that the ranks of this host share ({error}): "
                "use fewer ranks a host, or a smaller model"
            ) from error

    def forget_name(self) -> None:
        """Removes the file's name, once all have opened it."""
        if self._name is not None:
            self._name.unlink(missing_ok=True)
            self._name = None

    def close(self) -> None:
        """Releases it."""
        self.forget_name()
        self._map = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
