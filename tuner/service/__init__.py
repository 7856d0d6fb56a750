"""Use cases of the command line, such as `run` and `report`; the caller passes the study database."""
