"""Optuna's storage, adapted to large studies and to a database that is locked or out of reach."""

from __future__ import annotations

from collections.abc import Container

from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import text

from storage.retries import Retries

#: Private methods of the storage that Optuna's cache calls, so they must be repeated too.
_PRIVATE = ("_create_new_trial", "_set_trial_param", "_get_trials")
#: Number of trials that are read at a time. Optuna keeps a database row of each score in memory while it
#: reads: with 2,000 running trials of 100 scores at once, the process took 560 MB more.
_TRIALS_AT_ONCE = 100


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


def retrying_storage(retries: Retries) -> type[RDBStorage]:
    """Returns a subclass of Optuna's `RDBStorage` whose methods are repeated while the database is locked.

    Args:
        retries: Repeats the methods, also while the database cannot be reached.
    """
    names = [*BaseStorage.__abstractmethods__, *_PRIVATE]
    return type(
        "RetryingStorage",
        (_BatchedStorage,),
        {name: retries.wrapped(getattr(_BatchedStorage, name)) for name in names},
    )
