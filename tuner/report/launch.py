"""`launch.sh`: the recommended command as a script, the user's own where there is one."""

from __future__ import annotations

from tuner.recommendation import Recommendation
from tuner.report.format import format_configuration, format_interval, format_seconds


def launch_script(recommendation: Recommendation) -> str:
    """A shell script that trains the recommended configuration.

    Raises:
        ValueError: The recommendation has no command.
    """
    command = (recommendation.own_command or recommendation.command).strip()
    if not command:
        raise ValueError("a launch script needs a command; the recommendation has none")
    choice = recommendation.choice
    words = format_configuration(choice.configuration)
    comments = (
        f"Trains {recommendation.job_name} as Paceline recommends: {words}",
        f"Goal: {recommendation.goal}",
        f"Predicted: {format_seconds(choice.seconds.median)}, 90% interval {format_interval(choice.seconds)}",
    )
    lines = ["#!/bin/sh", *(f"# {_one_line(comment)}" for comment in comments), "set -eu", ""]
    return "\n".join([*lines, command, ""])


def _one_line(text: str) -> str:
    # A line break in a name must not end the comment.
    return " ".join(text.split())
