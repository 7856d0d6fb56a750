"""Alembic's environment for the study database; a merged revision is never edited."""
