"""Whether, and by what, one process sees another's stores in the order they were made."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable
from functools import cache

#: Machines whose stores become visible in order, and whose loads are made in order: x86-64 ("total store
#: order": Sewell et al. 2010, "x86-TSO"; Intel SDM volume 3A, 9.2) and s390x (z/Architecture Principles of
#: Operation, "Storage-Operand Consistency").
ORDERED_MACHINES = frozenset({"x86_64", "amd64", "s390x"})

#: `memory_order_seq_cst` of C11.
SEQUENTIALLY_CONSISTENT = 5


def _nothing() -> None:
    """The fence of a machine that needs none."""


@cache
def memory_fence() -> Callable[[], object] | None:
    """What is called between two stores, or two loads, whose order matters.

    Returns:
        None where no such thing is at hand, so that memory must not be shared without locks.
    """
    if platform.machine().lower() in ORDERED_MACHINES:
        return _nothing
    try:
        # Of GCC's run-time library, package libatomic1 (Debian) or libatomic (Fedora).
        fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except (OSError, AttributeError):
        return None
    fence.argtypes = [ctypes.c_int]
    fence.restype = None
    return lambda: fence(SEQUENTIALLY_CONSISTENT)


def shared_memory_is_safe() -> bool:
    """Whether ranks of this host may pass vectors through memory that they share."""
    return memory_fence() is not None
