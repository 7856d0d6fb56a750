"""One process of a load run: random operations on a ledger, with a journal of what was acknowledged."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import optuna

from benchmarks.soak_journals import Holding, Journal
from search_spaces import Configuration
from storage import Storage
from tuner.domain.errors import LeaseLostError
from tuner.domain.ledger import Lease, PredictionRecord
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

#: Short studies keep reading as expensive as it is in real ones.
_STUDY_SECONDS = 5.0


#: Some leases run out while they are held, so that others take the probe.
_LEASE_SECONDS = (0.05, 0.3, 30.0)


_MOST_OPERATIONS = 1_000_000


_CONFIGURATION = Configuration(batch_size=8)


class Worker:
    """One process's share of the load.

    Args:
        storage: The open database.
        number: Which process it is.
        seed: Of its draws.
    """

    def __init__(self, storage: Storage, number: int, seed: int) -> None:
        self._storage, self._ledger = storage, storage.ledger
        self._name, self._token = f"worker-{number}", number * 10**9
        self._rng = random.Random(f"{seed}-{number}")
        self._held: dict[int, tuple[Lease, Holding]] = {}
        self._known: list[int] = []
        self._study_id, self._period = -1, -1
        self._optuna: optuna.Study | None = None
        self.journal = Journal()

    def work(self, seconds: float) -> None:
        """Carries out random operations until the time is up."""
        started = time.monotonic()
        choices: list[tuple[Callable[[], None], int]] = [
            (self._start, 3), (self._take, 4), (self._renew, 3), (self._append, 8), (self._release, 2),
            (self._end, 1), (self._predict, 2), (self._read, 1), (self._trial, 1),
        ]  # fmt: skip
        operations, weights = zip(*choices, strict=True)
        for _ in range(_MOST_OPERATIONS):
            if time.monotonic() - started >= seconds:
                break
            self._call("open", self._open)
            operation = self._possible(self._rng.choices(operations, weights)[0])
            self._call(operation.__name__.strip("_"), operation)

    def _possible(self, operation: Callable[[], None]) -> Callable[[], None]:
        """The operation, or one that makes it possible: what does nothing would count as fast."""
        if operation in (self._renew, self._append, self._release, self._end) and not self._held:
            return self._start
        if operation == self._take and not set(self._known) - set(self._held):
            return self._read
        return operation

    def _call(self, name: str, operation: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            operation()
        except LeaseLostError:
            self.journal.refusals += 1
        except Exception as error:
            self.journal.errors.append(f"{name}: {type(error).__name__}: {error}"[:500])
        if name != "open":
            self.journal.seconds[name].append(time.monotonic() - started)

    def _open(self) -> None:
        period = int(time.time() // _STUDY_SECONDS)
        if self._period == period:
            return
        for probe_id in list(self._held):
            self._give_back(probe_id)
        study = self._ledger.open_study("load", f"period-{period}", {})
        self._study_id, self._period, self._known = study.study_id, period, []
        with self._storage.guarded():
            self._optuna = optuna.create_study(
                study_name=study.name, storage=self._storage.optuna_storage(), load_if_exists=True
            )

    def _start(self) -> None:
        asked = time.time()
        lease = self._ledger.start_probe(
            self._study_id,
            _CONFIGURATION,
            Purpose.TRAINING,
            trial_number=None,
            owner=self._name,
            lease_seconds=self._rng.choice(_LEASE_SECONDS),
        )
        self._pause(lease, asked)

    def _take(self) -> None:
        free = sorted(set(self._known) - set(self._held))
        if not free:
            return
        probe_id = self._rng.choice(free)
        asked = time.time()
        lease = self._ledger.take_probe(
            probe_id, owner=self._name, lease_seconds=self._rng.choice(_LEASE_SECONDS)
        )
        self._pause(lease, asked)

    def _pause(self, lease: Lease, asked: float) -> None:
        holding = Holding(
            probe_id=lease.probe_id,
            attempt=lease.attempt,
            owner=self._name,
            asked_at=asked,
            since=time.time(),
            until=lease.expires_at,
        )
        self._held[lease.probe_id] = lease, holding
        self.journal.holdings.append(holding)

    def _renew(self) -> None:
        for lease, holding in self._one_held():
            with self._or_lost(lease, holding):
                renewed = self._ledger.renew(lease, lease_seconds=self._rng.choice(_LEASE_SECONDS))
                # A lease that had run out may have been free in between: the new one starts now.
                now = time.time()
                later = replace(holding, asked_at=now, since=now, until=renewed.expires_at)
                holding.until = min(holding.until, now)
                self._held[lease.probe_id] = renewed, later
                self.journal.holdings.append(later)

    def _append(self) -> None:
        for lease, holding in self._one_held():
            self._token += 1
            with self._or_lost(lease, holding):
                self._ledger.append_slice(lease, _slice(self._token))
                self.journal.slices[lease.probe_id].append(self._token)

    def _release(self) -> None:
        for lease, _ in self._one_held():
            self._give_back(lease.probe_id)

    def _give_back(self, probe_id: int) -> None:
        lease, holding = self._held.pop(probe_id)
        holding.until = min(holding.until, time.time())
        self._ledger.release(lease)

    def _end(self) -> None:
        for lease, holding in self._one_held():
            with self._or_lost(lease, holding):
                # An end needs no lease: nobody else may take the probe while this one ends it.
                self._ledger.renew(lease, lease_seconds=max(_LEASE_SECONDS))
                del self._held[lease.probe_id]
                holding.until = min(holding.until, time.time())
                self._ledger.end_probe(lease.probe_id, Outcome.STOPPED, "enough")

    def _predict(self) -> None:
        count = self._rng.randint(1, 20)
        self._ledger.add_predictions([_prediction(self._study_id) for _ in range(count)])
        self.journal.num_predictions += count

    def _read(self) -> None:
        self._known = [p.probe_id for p in self._ledger.probes(self._study_id) if p.outcome.can_continue]

    def _trial(self) -> None:
        assert self._optuna is not None
        with self._storage.guarded():
            trial = self._optuna.ask()
            trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)
            trial.report(0.5, 1)
            self._optuna.tell(trial, 0.5)
        self.journal.num_trials += 1

    def _one_held(self) -> Iterator[tuple[Lease, Holding]]:
        if self._held:
            yield self._held[self._rng.choice(list(self._held))]

    @contextmanager
    def _or_lost(self, lease: Lease, holding: Holding) -> Iterator[None]:
        """A refusal ends the holding; one that comes while the lease holds is an error."""
        try:
            yield
        except LeaseLostError as error:
            if time.time() < holding.until:
                self.journal.errors.append(f"refused while the lease holds: {error}")
            self._held.pop(lease.probe_id, None)
            holding.until = min(holding.until, time.time())
            raise


def _slice(token: int) -> Measurement:
    points = range(token % 20)
    return Measurement(
        configuration=_CONFIGURATION,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=tuple(CurvePoint(training_seconds=1.0, step=token, samples=i, value=0.5) for i in points),
        step=token,
    )


def _prediction(study_id: int) -> PredictionRecord:
    return PredictionRecord(
        study_id=study_id,
        configuration=_CONFIGURATION,
        created_at=time.time(),
        quantiles={0.5: 1.0},
        dollars={0.5: 1.0},
        probability_of_reaching=0.5,
        num_slices=0,
        seconds_observed=0.0,
    )
