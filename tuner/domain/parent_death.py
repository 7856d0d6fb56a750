"""Asks the kernel of Linux to kill this process when its parent ends; does nothing on other systems."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int, number: int = signal.SIGKILL) -> None:
    """Makes the kernel send this process a signal when its parent ends; exits if the parent has ended.

    The kernel sends the signal when the thread that started this process ends, even if other threads of the
    parent are still running. Threads and `exec` keep the request; processes that this process forks do not.

    Args:
        parent: Process number of the parent.
        number: Number of the signal.
    """
    _request(number)
    if os.getppid() != parent:
        os._exit(1)


def outlive_parent() -> None:
    """Withdraws the request of `die_with_parent`, for a process that notices the end of its parent itself."""
    _request(0)


def _request(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
