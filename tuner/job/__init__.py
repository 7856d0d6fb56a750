"""Reads and checks job files (TOML), and makes the command line of the user's training script."""

from tuner.job.command_check import takes_seed
from tuner.job.command_files import script_digest
from tuner.job.command_section import METRIC_SOURCES, CommandSection, MetricsSection
from tuner.job.command_template import VARIABLES, Template, variable_name, written
from tuner.job.command_values import (
    own_launch,
    rendered_command,
    rendered_environment,
    required_variables,
    stated_values,
    user_command,
)
from tuner.job.feasibility import check_feasible, job_warnings
from tuner.job.loading import job_name, load_job
from tuner.job.model import Job, job_schema
from tuner.job.sections import (
    BaselineSection,
    BudgetSection,
    ClusterSection,
    DelaySection,
    EmulateSection,
    GoalSection,
    ProbeSection,
    WorkloadSection,
)
from tuner.job.space_section import SpaceSection
from tuner.job.template import example_names, example_scripts, example_text, job_template
from tuner.job.values import configuration_with_knobs
from tuner.job.workload_code import workload_code_digest
from tuner.job.workload_reference import load_workload

__all__ = [
    "METRIC_SOURCES",
    "VARIABLES",
    "BaselineSection",
    "BudgetSection",
    "ClusterSection",
    "CommandSection",
    "DelaySection",
    "EmulateSection",
    "GoalSection",
    "Job",
    "MetricsSection",
    "ProbeSection",
    "SpaceSection",
    "Template",
    "WorkloadSection",
    "check_feasible",
    "configuration_with_knobs",
    "example_names",
    "example_scripts",
    "example_text",
    "job_name",
    "job_schema",
    "job_template",
    "job_warnings",
    "load_job",
    "load_workload",
    "own_launch",
    "rendered_command",
    "rendered_environment",
    "required_variables",
    "script_digest",
    "stated_values",
    "takes_seed",
    "user_command",
    "variable_name",
    "workload_code_digest",
    "written",
]
