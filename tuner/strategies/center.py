"""Strategies with a server: ranks exchange parameters with a common vector, the center.

The server of the center is a thread of one rank, the leader. Any other rank sends the server a request with a
vector (`Transport.ask`). The server changes the center by the request and sends a reply with a vector
(`Transport.answer`).
"""

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

#: Interval at which the server's thread checks whether it should end, seconds.
_POLL_SECONDS = 0.2
#: Interval at which Python switches between threads, seconds. Python's default of 5 ms would let requests
#: wait while the training computes.
_SWITCH_SECONDS = 0.0005

#: Interval at which a rank that waits for a reply checks whether the server still responds, seconds.
_WAIT_SECONDS = 0.1

#: Timeout of a request while reply times are unknown, and smallest timeout of a request, seconds.
_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS = 10.0, 0.25

Serve = Callable[[Tensor, Tensor, Tensor], None]
"""Function `serve(center, asked, out)`: changes the center by a request, and writes the reply.

Args:
    center: The center, changed in place.
    asked: The vector of the request.
    out: The vector of the reply, overwritten.
"""


class CenterClient:
    """Waits for replies of the leader's server up to an adaptive timeout; late replies can be read later.

    Args:
        links: This rank's connections to the other ranks.
    """

    def __init__(self, links: Links) -> None:
        assert links.transport is not None
        self._links, self._transport = links, links.transport
        self._timeout = AdaptiveTimeout(_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS)
        self._late: set[int] = set()

    def answer(self, server: int) -> Received | None:
        """Waits for the server's reply to the last request, at most until the timeout.

        The method also returns if `server` is no longer the leader, since the reply may then never arrive.

        Args:
            server: The rank that serves the center.

        Returns:
            The reply; None if it did not arrive before the timeout, or if another rank has become the leader.
        """
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
        """Yields the replies that have arrived after their timeout."""
        for server in sorted(self._late):
            answer = self._transport.reply(server)
            if answer is not None:
                self._late.discard(server)
                yield answer

    def is_settled(self) -> bool:
        """Whether this rank expects no more replies from live ranks."""
        return not self._late & set(self._links.live_ranks())


class CenterServer:
    """Stores the center on the CPU, and serves requests one at a time, in order of arrival.

    Every rank has a server, whose thread sleeps until a request arrives. Ranks send requests to the leader's
    server. If the leader stops responding, another rank becomes the leader; its server starts with the center
    as that rank knew it after its last exchange.

    Args:
        links: This rank's connections to the other ranks. The server's thread calls the transport's
            `next_request` and `answer`.
        serve: Changes the center by a request, and writes the reply.
        first_center: Returns the initial center; called when the center is first needed.
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
        """Starts the thread that serves the requests of ranks."""
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._thread = threading.Thread(target=self._run, name="center", daemon=True)
        self._thread.start()

    def prepare(self) -> None:
        """Creates the center (the common vector) now, before the vector from which it is copied changes."""
        with self._lock:
            self._ensured()

    def exchange(self, sender: int, asked: Tensor, out: Tensor) -> int:
        """Serves one request, of this rank or of another rank.

        Args:
            sender: The rank that sent the request.
            asked: The vector of the request, on the CPU.
            out: The vector of the reply, on the CPU, overwritten.

        Returns:
            Number of requests of other ranks that were served since the last request of `sender`.
        """
        with self._lock:
            self._serve(self._ensured(), asked, out)
            since = self._exchanges - self._last_of.get(sender, self._exchanges)
            self._exchanges += 1
            self._last_of[sender] = self._exchanges
            return since

    def undisturbed(self) -> threading.Lock:
        """Returns a lock; the server serves no request while another thread holds the lock.

        The training acquires the lock to change the vector from which the initial center is copied.
        """
        return self._lock

    def held(self) -> Tensor | None:
        """Returns a copy of the center if this rank is the leader, else None."""
        if self._links.leader() != self._links.rank:
            return None
        with self._lock:
            return self._ensured().clone()

    def forget(self) -> None:
        """Deletes this rank's copy of the center, the common vector.

        If the rank was the leader before, the copy would be out of date when it becomes the leader again.
        """
        with self._lock:
            self._center = None

    def load(self, centers: Sequence[Tensor | None]) -> None:
        """Restores the center that one of the ranks saved, if this rank is the leader.

        Args:
            centers: The saved center of each rank; None for a rank that was not the leader.
        """
        self.forget()
        known = [center for center in centers if center is not None]
        if known and self._links.leader() == self._links.rank:
            with self._lock:
                self._center = known[0].clone()

    def check(self) -> None:
        """Raises a `RuntimeError` if the thread that serves the requests of ranks has failed."""
        if self._error is not None:
            raise RuntimeError("the thread that serves the requests of ranks has failed") from self._error

    def close(self) -> None:
        """Ends the thread that serves the requests of ranks."""
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
        # The transport needs the tag (number of requests since the sender's last one) before it fills the
        # reply.
        since = self._exchanges_since(request.sender)

        def fill(message: Tensor) -> None:
            self.exchange(request.sender, request.vector, message)

        self._transport.answer(request, fill, since)

    def _exchanges_since(self, sender: int) -> int:
        with self._lock:
            return self._exchanges - self._last_of.get(sender, self._exchanges)


class CenterRule(PeerRule):
    """The rule by which one rank exchanges parameters with the center (the server's vector of parameters).

    Evaluations use the center.
    """

    def start(self) -> None:
        #: The center as this rank knows it from its last exchange, on the CPU. If this rank becomes the
        #: leader, its server starts with this center.
        self._known = self.plain().detach().to("cpu", copy=True)
        self._client = CenterClient(self.links)
        self._server = CenterServer(self.links, self.serve, self._known.clone)
        self._server.start()

    @abstractmethod
    def serve(self, center: Tensor, asked: Tensor, out: Tensor) -> None:
        """Changes the center by a request, and writes the reply; called in the server's thread.

        Args:
            center: The center, changed in place.
            asked: The vector of the request.
            out: The vector of the reply, overwritten.
        """

    @abstractmethod
    def apply(self, answer: Tensor) -> None:
        """Changes this rank's parameters by the vector of the server's reply."""

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
        # Older checkpoints of parameter servers store the vector under `taken`.
        self._known.copy_(state["known"] if "known" in state else state["taken"])
        self._server.load([other["center"] for other in of_all])

    def close(self) -> None:
        self._server.close()
