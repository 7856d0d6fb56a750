"""A switch between network interfaces that passes every frame on after a delay.

For kernels without netem. Run inside the network namespace whose TAP interfaces it joins:
`python delaying_switch.py SECONDS tap0 tap1 ...`; standard library only. It says `ready` once it listens, and
ends when its standard input does.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import sys
import time
from collections import deque

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
_LONGEST_FRAME = 65_536
#: Frames read from one interface before the others are looked at.
_AT_ONCE = 64
_BROADCAST_BIT = 1


def opened_tap(name: str) -> int:
    """The descriptor of a TAP interface: frames out of it are read, frames into it are written."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return tap


class DelayingSwitch:
    """Learns which addresses lie behind which interface, as switches do.

    Args:
        taps: Descriptors of the interfaces.
        delay_seconds: What a frame waits here.
    """

    def __init__(self, taps: list[int], delay_seconds: float) -> None:
        self._taps, self._delay = taps, delay_seconds
        self._behind: dict[bytes, int] = {}
        #: All frames wait equally long: they leave in the order in which they came.
        self._waiting: deque[tuple[float, int, bytes]] = deque()

    def run(self) -> None:
        """Passes frames on until standard input ends."""
        while True:
            timeout = max(0.0, self._waiting[0][0] - time.monotonic()) if self._waiting else None
            ready, _, _ = select.select([*self._taps, 0], [], [], timeout)
            self._pass_on()
            if 0 in ready and not os.read(0, 4096):
                return
            for tap in ready:
                if tap != 0:
                    self._take(tap)

    def _take(self, tap: int) -> None:
        for _ in range(_AT_ONCE):
            try:
                frame = os.read(tap, _LONGEST_FRAME)
            except BlockingIOError:
                return
            self._waiting.append((time.monotonic() + self._delay, tap, frame))

    def _pass_on(self) -> None:
        now = time.monotonic()
        while self._waiting and self._waiting[0][0] <= now:
            _, came_from, frame = self._waiting.popleft()
            target, source = frame[:6], frame[6:12]
            self._behind[source] = came_from
            known = None if target[0] & _BROADCAST_BIT else self._behind.get(target)
            for tap in self._taps if known is None else [known]:
                if tap != came_from:
                    try:
                        os.write(tap, frame)
                    except OSError:
                        # Full, or down: a switch drops what it cannot deliver.
                        continue


def _hurry() -> None:
    """Goes before whatever else wants the cores, where that is permitted: a late frame is a longer delay."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(3))


if __name__ == "__main__":
    _hurry()
    switch = DelayingSwitch([opened_tap(name) for name in sys.argv[2:]], float(sys.argv[1]))
    print("ready", flush=True)
    switch.run()
