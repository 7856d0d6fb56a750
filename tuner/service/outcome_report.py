"""Reports the real time to target of `paceline train` to the server in `PACELINE_REPORT_TO`."""

from __future__ import annotations

import json
import os
import urllib.error

from search_spaces import Configuration
from tuner.search.events import Listener, SearchEvent, ignore
from tuner.search.state import SearchState, run_of


def report_training(configuration: Configuration, state: SearchState, listen: Listener = ignore) -> None:
    """Reports how a training ended, if `PACELINE_REPORT_TO` is set, as launch files set it.

    A training that failed is not reported. A repeated report changes nothing on the server. If the report
    fails, the listener gets a warning, since the training itself has succeeded.

    Args:
        configuration: The configuration that was trained.
        state: State of the study of this training.
        listen: Function that is called with the warning.
    """
    place = os.environ.get("PACELINE_REPORT_TO")
    run = run_of(state, configuration)
    if not place or run is None or run.probe.outcome.is_fault or not run.measurement.training_seconds:
        return
    import paceline_client

    if not os.environ.get("PACELINE_TOKEN"):
        words = "PACELINE_TOKEN is not set; set it to the token of the job, or use `paceline outcome add`"
        listen(SearchEvent(kind="warning", text=f"the time to target was not reported: {words}"))
        return
    seconds = run.seconds_to_target
    body = {
        "seconds": run.measurement.training_seconds if seconds is None else seconds,
        "reached": seconds is not None,
        "values": dict(configuration),
        "source": "paceline train",
    }
    try:
        paceline_client.send_outcome(place, body)
    except Exception as error:
        listen(SearchEvent(kind="warning", text=f"the time to target was not reported: {_words(error)}"))


def _words(error: Exception) -> str:
    """Returns what went wrong, with the words of the server if it has refused the report."""
    if isinstance(error, urllib.error.HTTPError):
        try:
            return f"{error}: {json.loads(error.read())['detail']}"
        except (ValueError, KeyError, OSError):
            return repr(error)
    return str(error)
