"""The center that ranks exchange with through a server: a thread of one rank, in order of arrival."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from tuner.strategies.strategy import Links
from tuner.strategies.timeouts import AdaptiveTimeout
from tuner.transport import Received

#: How often the thread checks whether it should end, seconds.
_POLL_SECONDS = 0.2
#: A thread that serves must get the interpreter between two operations of the training, not after 5 ms.
_SWITCH_SECONDS = 0.0005

#: How long a rank waits for the server before it checks whether the server still responds, seconds.
_WAIT_SECONDS = 0.1

#: Timeout for a server that has not answered yet, and the smallest timeout, seconds.
_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS = 10.0, 0.25

Serve = Callable[[Tensor, Tensor, Tensor], None]
"""`serve(center, asked, out)`: changes the center by what was asked, and writes the answer."""


class CenterClient:
    """Asks the leader's server, waits as long as answers usually take, and accepts those that come late.

    Args:
        links: To the other ranks.
    """

    def __init__(self, links: Links) -> None:
        assert links.transport is not None
        self._links, self._transport = links, links.transport
        self._timeout = AdaptiveTimeout(_FIRST_TIMEOUT_SECONDS, _LEAST_TIMEOUT_SECONDS)
        self._late: set[int] = set()

    def may_ask(self, server: int) -> bool:
        """Whether no question to it is unanswered."""
        return not self._transport.is_asked(server)

    def ask(self, server: int, vector: Tensor, tag: int) -> bool:
        """Asks; False if nothing could be sent."""
        return self._transport.ask(server, vector, tag)

    def answer(self, server: int) -> Received | None:
        """Waits for the answer while the server responds; None if it comes later, or never."""
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
        """Answers that nobody waits for any more, and that have arrived."""
        for server in sorted(self._late):
            answer = self._transport.reply(server)
            if answer is not None:
                self._late.discard(server)
                yield answer

    def is_settled(self) -> bool:
        """Whether no answer of a live rank is still to come."""
        return not self._late & set(self._links.live_ranks())


class CenterServer:
    """Stores the center, on the CPU, and changes it by one exchange at a time.

    Every rank has one; it sleeps in the kernel until somebody asks. The askers choose whom to ask, the
    leader: when it falls silent, the next takes over, with the center as it last saw it.

    Args:
        links: To the other ranks; `next_request` and `answer` are called in the server's thread.
        serve: The rule.
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
        """Makes the first center now, before what it is made from changes."""
        with self._lock:
            self._ensured()

    def exchange(self, sender: int, asked: Tensor, out: Tensor) -> int:
        """One exchange, for this rank itself or for one that asked.

        Args:
            sender: The rank that asked.
            asked: What it sent, on the CPU.
            out: Where to write the answer, on the CPU.

        Returns:
            Exchanges of other ranks since the last of this one.
        """
        with self._lock:
            self._serve(self._ensured(), asked, out)
            since = self._exchanges - self._last_of.get(sender, self._exchanges)
            self._exchanges += 1
            self._last_of[sender] = self._exchanges
            return since

    def undisturbed(self) -> threading.Lock:
        """A context in which no exchange is served: for changing what the first center is made from."""
        return self._lock

    def held(self) -> Tensor | None:
        """A copy of the center if this rank leads; None if another one serves it."""
        if self._links.leader() != self._links.rank:
            return None
        with self._lock:
            return self._ensured().clone()

    def forget(self) -> None:
        """Drops a center this rank held while it led: it is out of date once it leads again."""
        with self._lock:
            self._center = None

    def load(self, centers: Sequence[Tensor | None]) -> None:
        """Resumes with the center that one of the ranks saved; the present leader serves it."""
        self.forget()
        known = [center for center in centers if center is not None]
        if known and self._links.leader() == self._links.rank:
            with self._lock:
                self._center = known[0].clone()

    def check(self) -> None:
        """Raises what ended the thread, if anything did."""
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
        # The number goes out with the message, so it is counted before the message is filled.
        since = self._exchanges_since(request.sender)

        def fill(message: Tensor) -> None:
            self.exchange(request.sender, request.vector, message)

        self._transport.answer(request, fill, since)

    def _exchanges_since(self, sender: int) -> int:
        with self._lock:
            return self._exchanges - self._last_of.get(sender, self._exchanges)
