"""Strategies with a server: the center that ranks exchange with, served by a thread of one rank."""

from __future__ import annotations

import sys
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from tuner.strategies.asynchronous import PeerRule
from tuner.strategies.strategy import Links
from tuner.strategies.timeouts import AdaptiveTimeout
from tuner.transport import Received

#: How often the thread checks whether it should end, seconds.
_POLL_SECONDS = 0.2
#: The server's thread must get the interpreter between two operations of the training, not after 5 ms.
_SWITCH_SECONDS = 0.0005

#: How long a rank waits for the server before it checks whether the server still responds, seconds.
_WAIT_SECONDS = 0.1

#: Timeout for a server that has not answered yet, and the smallest timeout, seconds.
_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS = 10.0, 0.25

Serve = Callable[[Tensor, Tensor, Tensor], None]
"""`serve(center, asked, out)`: changes the center by what was asked, and writes the answer."""


class CenterClient:
    """Waits for answers of the leader's server, as long as they usually take, and accepts late ones.

    Args:
        links: To the other ranks.
    """

    def __init__(self, links: Links) -> None:
        assert links.transport is not None
        self._links, self._transport = links, links.transport
        self._timeout = AdaptiveTimeout(_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS)
        self._late: set[int] = set()

    def answer(self, server: int) -> Received | None:
        """Waits for the answer while the server is the leader; None if it comes later, or never."""
        began = time.perf_counter()
        limit = self._timeout.seconds
        while (left := limit - (time.perf_counter() - began)) > 0:
            answer = self._transport.reply(server, wait_seconds=min(left, _WAIT_SECONDS))
            if answer is not None:
                self._timeout.note(time.perf_counter() - began)
                return answer
            self._links.refresh()
            if self._links.leader() != server:
                break
        self._late.add(server)
        return None

    def late_answers(self) -> Iterator[Received]:
        """Answers that have arrived after their timeout."""
        for server in sorted(self._late):
            answer = self._transport.reply(server)
            if answer is not None:
                self._late.discard(server)
                yield answer

    def is_settled(self) -> bool:
        """Whether no answer of a live rank is still to come."""
        return not self._late & set(self._links.live_ranks())


class CenterServer:
    """Stores the center, on the CPU, and serves one exchange at a time, in order of arrival.

    Every rank has a server, whose thread sleeps until a request arrives. Ranks ask the leader's. If the
    leader falls silent, the next leader takes over, with the center as it last saw it.

    Args:
        links: To the other ranks; `next_request` and `answer` are called in the server's thread.
        serve: Changes the center by a request, and writes the answer.
        first_center: The initial center, made when it is first needed.
    """

    def __init__(self, links: Links, serve: Serve, first_center: Callable[[], Tensor]) -> None:
        assert links.transport is not None
        self._links, self._transport = links, links.transport
        self._serve, self._first_center = serve, first_center
        self._lock = threading.Lock()
        self._center: Tensor | None = None
        self._exchanges = 0
        self._last_of: dict[int, int] = {}
        self._ending = threading.Event()
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._old_switch_seconds = sys.getswitchinterval()

    def start(self) -> None:
        """Starts serving."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = threading.Thread(target=self._run, name="center", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Creates the first center, before the parameters that it copies change."""
        with self._lock:
            self._ensured()

    def exchange(self, sender: int, asked: Tensor, out: Tensor) -> int:
        """Serves one request, of this rank or of another.

        Args:
            sender: The rank that asks.
            asked: The vector it sent, on the CPU.
            out: The answer is written here; on the CPU.

        Returns:
            Exchanges of other ranks since the last one of `sender`.
        """
        with self._lock:
            self._serve(self._ensured(), asked, out)
            since = self._exchanges - self._last_of.get(sender, self._exchanges)
            self._exchanges += 1
            self._last_of[sender] = self._exchanges
            return since

    def undisturbed(self) -> threading.Lock:
        """A context in which no exchange is served, for changing what the first center copies."""
        return self._lock

    def held(self) -> Tensor | None:
        """A copy of the center if this rank is the leader, else None."""
        if self._links.leader() != self._links.rank:
            return None
        with self._lock:
            return self._ensured().clone()

    def forget(self) -> None:
        """Drops the center of a former leader, which would be out of date if it led again."""
        with self._lock:
            self._center = None

    def load(self, centers: Sequence[Tensor | None]) -> None:
        """Resumes with the center that one of the ranks saved, if this rank is the leader."""
        self.forget()
        known = [center for center in centers if center is not None]
        if known and self._links.leader() == self._links.rank:
            with self._lock:
                self._center = known[0].clone()

    def check(self) -> None:
        """Raises the error of the thread, if it failed."""
        if self._error is not None:
            raise RuntimeError("the thread that serves the center has failed") from self._error

    def close(self) -> None:
        """Ends the thread."""
        self._ending.set()
        if self._thread is not None:
            self._thread.join()
            sys.setswitchinterval(self._old_switch_seconds)

    def _ensured(self) -> Tensor:
        if self._center is None:
            self._center = self._first_center()
        return self._center

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                request = self._transport.next_request(wait_seconds=_POLL_SECONDS)
                if request is not None:
                    self._answer(request)
        except BaseException as error:
            self._error = error

    def _answer(self, request: Received) -> None:
        # The number is sent with the message, so it is counted before the message is filled.
        since = self._exchanges_since(request.sender)

        def fill(message: Tensor) -> None:
            self.exchange(request.sender, request.vector, message)

        self._transport.answer(request, fill, since)

    def _exchanges_since(self, sender: int) -> int:
        with self._lock:
            return self._exchanges - self._last_of.get(sender, self._exchanges)


class CenterRule(PeerRule):
    """What one rank does at an exchange with the center; the center is evaluated."""

    def start(self) -> None:
        #: The center as this rank last saw it, on the CPU.
        self._known = self.plain().detach().to("cpu", copy=True)
        self._client = CenterClient(self.links)
        self._server = CenterServer(self.links, self.serve, self._known.clone)
        self._server.start()

    @abstractmethod
    def serve(self, center: Tensor, asked: Tensor, out: Tensor) -> None:
        """Changes the center by a request, and writes the answer to `out`; called in the server's thread."""

    @abstractmethod
    def apply(self, answer: Tensor) -> None:
        """Applies the server's answer to this rank's parameters."""

    def attend(self, step: int) -> bool:
        self._server.check()
        for answer in self._client.late_answers():
            self.apply(answer.vector)
        return self._client.is_settled()

    def score_vector(self) -> Tensor | None:
        return self._server.held()

    def state(self) -> dict[str, Any]:
        return {"known": self._known.clone(), "center": self._server.held()}

    def load(self, state: Mapping[str, Any], *, of_all: Sequence[Mapping[str, Any]], is_twin: bool) -> None:
        # Checkpoints of parameter servers called it `taken` before.
        self._known.copy_(state["known"] if "known" in state else state["taken"])
        self._server.load([other["center"] for other in of_all])

    def close(self) -> None:
        self._server.close()
