"""Optuna's storage, adapted to large studies and to a database that is locked or out of reach."""

from __future__ import annotations

import copy
import threading
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.storages._rdb.models import TrialIntermediateValueModel, TrialModel
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from storage.retries import Retries

#: Private methods of the storage that Optuna's cache calls, so they must be repeated too.
_PRIVATE = ("_set_trial_param", "_get_trials")
#: Methods that need more than a repetition, because their changes may have been committed before.
_ONCE = ("_create_new_trial", "create_new_trial", "set_trial_state_values")
#: Number of trials that are read at a time. Optuna keeps a database row of each score in memory while it
#: reads: with 2,000 running trials of 100 scores at once, the process took 560 MB more. With 100 trials at
#: once, it took 47 MB more, and with 25 trials at once 34 MB.
_TRIALS_AT_ONCE = 25


class _BatchedStorage(RDBStorage):
    """Optuna storage that reads the trials of a study in batches, so that the process needs less memory."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        with self.engine.connect() as connection:
            statement = text("SELECT trial_id FROM trials WHERE study_id = :study ORDER BY trial_id")
            every = list(connection.execute(statement, {"study": study_id}).scalars())
        wanted = [i for i in every if i > trial_id_greater_than or i in included_trial_ids]
        if len(wanted) <= _TRIALS_AT_ONCE:
            return super()._get_trials(study_id, states, included_trial_ids, trial_id_greater_than)
        found: dict[int, FrozenTrial] = {}
        for first in range(0, len(wanted), _TRIALS_AT_ONCE):
            batch = set(wanted[first : first + _TRIALS_AT_ONCE])
            trials = super()._get_trials(study_id, states, batch, every[-1])
            found |= {trial._trial_id: trial for trial in trials}
        return list(found.values())


class _OnceStorage(_BatchedStorage):
    """Optuna storage that creates and ends a trial once, even if the confirmation of a commit was lost.

    Optuna's own method would create a second trial, or would refuse to end a trial that has ended.
    """

    #: Set by `retrying_storage`.
    retries: Retries
    _created = threading.local()

    def _create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> FrozenTrial:
        self._created.row = None
        create = super()._create_new_trial
        return self.retries.repeat(lambda _again: create(study_id, template_trial))

    def _get_prepared_new_trial(self, study_id: int, template_trial: FrozenTrial | None, session: Any) -> Any:
        # Optuna calls this in the transaction that creates the trial. It repeats this transaction, too.
        row: tuple[type[Any], int, datetime] | None = self._created.row
        if row is not None:
            kind, trial_id, started_at = row
            stored = session.get(kind, trial_id)
            if stored is not None and (stored.study_id, stored.datetime_start) == (study_id, started_at):
                return stored
        bare = template_trial and copy.copy(template_trial)
        if bare is not None:
            bare.intermediate_values = {}
        trial = super()._get_prepared_new_trial(study_id, bare, session)
        if template_trial is not None:
            _add_scores(session, trial, template_trial.intermediate_values)
        self._created.row = (type(trial), trial.trial_id, trial.datetime_start)
        return trial

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        change = super().set_trial_state_values

        def changed(again: bool) -> bool:
            try:
                return change(trial_id, state, values)
            except UpdateFinishedTrialError:
                if again and self.get_trial(trial_id).state is state:
                    return True
                raise

        return self.retries.repeat(changed)


def _add_scores(session: Any, trial: TrialModel, scores: Mapping[int, float]) -> None:
    """Inserts the intermediate values of a new trial at once; Optuna would look for each of them first."""
    kind = TrialIntermediateValueModel
    for step, score in scores.items():
        value, value_type = kind.intermediate_value_to_stored_repr(score)
        stored = {"intermediate_value": value, "intermediate_value_type": value_type}
        session.add(kind(trial_id=trial.trial_id, step=step, **stored))


def retrying_storage(retries: Retries) -> type[RDBStorage]:
    """Returns a subclass of Optuna's `RDBStorage` whose methods are repeated while the database is locked.

    Args:
        retries: Repeats the methods, also while the database cannot be reached.
    """
    names = {*BaseStorage.__abstractmethods__, *_PRIVATE}.difference(_ONCE)
    repeated = {name: retries.wrapped(getattr(_OnceStorage, name)) for name in sorted(names)}
    return type("RetryingStorage", (_OnceStorage,), {"retries": retries, **repeated})
