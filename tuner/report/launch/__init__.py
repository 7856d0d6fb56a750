"""Export a recommendation: a script, a scheduler's job, a manifest or an environment file."""

from tuner.report.launch.plan import LaunchPlan, launch_plan
from tuner.report.launch.targets import TARGETS, Target, launch_text

__all__ = ["TARGETS", "LaunchPlan", "Target", "launch_plan", "launch_text"]
