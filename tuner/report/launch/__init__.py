"""The recommendation as something that runs: a script, an engine's job, a manifest, an environment file."""

from tuner.report.launch.plan import LaunchPlan, launch_plan
from tuner.report.launch.targets import TARGETS, Target, launch_text

__all__ = ["TARGETS", "LaunchPlan", "Target", "launch_plan", "launch_text"]
