"""The study database: Paceline's tables and Optuna's tables in one SQLite or PostgreSQL database."""

from storage.database import Storage, open_storage
from storage.sql_ledger import SqlLedger

__all__ = ["SqlLedger", "Storage", "open_storage"]
