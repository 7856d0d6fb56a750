"""The contract of what studies are kept in; the database comes from above."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

from tuner.ledger import Ledger

if TYPE_CHECKING:
    import optuna


class StudyStore(Protocol):
    """Where studies are kept; `storage.Storage` is one."""

    @property
    def ledger(self) -> Ledger:
        """The ledger."""

    @property
    def url(self) -> str:
        """Where it lies, with the password hidden."""

    def optuna_storage(self) -> optuna.storages.BaseStorage:
        """Optuna's tables in the same place."""

    def guarded(self) -> AbstractContextManager[None]:
        """Raises `StorageError` for failures of the store inside."""
