"""What is handed to the sending thread arrives, the news of its end included."""

from __future__ import annotations

import pytest
import torch

from tuner.transport.messages import Outbox, SendBufferPool
from tuner.transport.transport import VectorForm


class _ClosedWithin:
    """A waking end of an outbox that is closed just before, or just after, its wakings are taken."""

    def __init__(self, outbox: Outbox, *, before: bool) -> None:
        self._outbox, self._before, self._waking = outbox, before, outbox.waking

    def recv(self, size: int) -> bytes:
        if self._before:
            self._outbox.close()
        taken = self._waking.recv(size)
        if not self._before:
            self._outbox.close()
        return taken


@pytest.mark.parametrize("before", [True, False])
def test_an_end_that_comes_while_wakings_are_taken_is_not_lost(
    before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    outbox = Outbox(SendBufferPool(VectorForm(num_elements=1, dtype=torch.float32)))
    waking = outbox.waking
    outbox.wake()
    with monkeypatch.context() as patched:
        patched.setattr(outbox, "waking", _ClosedWithin(outbox, before=before))
        _, is_last = outbox.drain()
    # Either it is reported now, or another wake-up follows that will report it.
    if not is_last:
        assert waking.recv(1) == b"!"
        waking.setblocking(False)
        _, is_last = outbox.drain()
    assert is_last
    outbox.dispose()
