"""Imports the Workload class of a job, creates the Workload, and checks it against the job."""

from __future__ import annotations

import contextlib
import importlib
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any

from tuner.domain.errors import JobError, did_you_mean
from tuner.domain.workload import Workload
from tuner.job.job_modules import importing_from, interrupts_deferred, is_missing_itself, similar_module
from tuner.job.model import Job


def load_workload(job: Job, job_folder: Path) -> Workload:
    """Imports the Workload class of a job and creates the Workload with the parameters in the job.

    Python searches for the module in the job's folder first, then in the installed packages. A folder never
    replaces a package of Paceline with the same name. The import usually loads torch, which takes seconds.

    Args:
        job: A job that trains a Workload.
        job_folder: Folder of the job file.

    Raises:
        JobError: The class cannot be imported, is not a Workload, does not accept the parameters, or its
            metric is not that of the job's goal.
    """
    class_ = _workload_class(job.trained.path, job_folder)
    _refuse_overridden_settings(job, class_)
    workload = _built(job, class_)
    if job.trained.optimizer is not None:
        workload.optimizer_settings = job.trained.optimizer
    if job.trained.schedule is not None:
        workload.schedule_settings = job.trained.schedule
    _check_goal(job, workload)
    return workload


def _workload_class(path: str, job_folder: Path) -> type[Workload]:
    module_name, class_name = path.split(":")
    module = _imported(module_name, job_folder)
    found = getattr(module, class_name, None)
    if found is None:
        raise JobError(_no_such_class(module, class_name))
    if not (inspect.isclass(found) and issubclass(found, Workload)):
        raise JobError(f"workload.path: {path} is not a Workload. Derive the class from paceline.Workload")
    if inspect.isabstract(found):
        missing = ", ".join(sorted(found.__abstractmethods__))
        raise JobError(f"workload.path: {path} does not define {missing}. Add these methods to the class")
    return found


def _imported(module_name: str, job_folder: Path) -> ModuleType:
    with interrupts_deferred(), contextlib.suppress(ImportError):
        # Every workload needs torch. If torch is broken, the import of the workload reports it.
        importlib.import_module("torch")
    try:
        with importing_from(job_folder, module_name):
            return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if not is_missing_itself(error, module_name):
            raise JobError(
                f"workload.path: importing {module_name} failed: it needs the module {error.name}, "
                "which is not installed here. Install it"
            ) from error
        hint = similar_module(module_name, job_folder)
        raise JobError(
            f"workload.path: there is no module {error.name} in {job_folder.absolute()} or among the "
            f"installed packages{hint} Put it beside the job file, or install it"
        ) from error
    except JobError:
        raise
    except Exception as error:
        raise JobError(
            f"workload.path: importing {module_name} failed with {type(error).__name__}: {error}. "
            f"Try `python -c 'import {module_name}'` in {job_folder.absolute()}"
        ) from error


def _no_such_class(module: ModuleType, class_name: str) -> str:
    names = [
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Workload) and value is not Workload
    ]
    hint = did_you_mean(class_name, names, f"{module.__name__}:{{}}")
    known = f"Its workloads are {', '.join(names)}" if names else "It defines no Workload"
    return f"workload.path: {module.__name__} has no class {class_name}{hint} {known}"


def _refuse_overridden_settings(job: Job, class_: type[Workload]) -> None:
    for name in ("optimizer", "schedule"):
        is_set = getattr(job.trained, name) is not None
        if is_set and getattr(class_, name) is not getattr(Workload, name):
            raise JobError(
                f"workload.{name}: {class_.__name__} defines its own `{name}`, which would ignore this "
                f"table. Remove [workload.{name}] from the job, or the method from the class"
            )


def _built(job: Job, class_: type[Workload]) -> Workload:
    parameters = job.trained.parameters
    signature = inspect.signature(class_)
    try:
        signature.bind(**parameters)
    except TypeError as error:
        raise JobError(_wrong_parameters(class_, signature, parameters, error)) from error
    try:
        return class_(**parameters)
    except JobError:
        raise
    except Exception as error:
        raise JobError(
            f"workload.parameters: {class_.__name__} does not accept {_spelled(parameters)}: "
            f"{type(error).__name__}: {error}"
        ) from error


def _wrong_parameters(
    class_: type[Workload], signature: inspect.Signature, parameters: dict[str, Any], error: TypeError
) -> str:
    accepted = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    listed = f"{class_.__name__} accepts {', '.join(accepted) or 'none'}"
    for name in parameters:
        if name not in accepted:
            hint = did_you_mean(name, accepted, "'workload.parameters.{}'")
            return f"unknown key 'workload.parameters.{name}'{hint} {listed}"
    for name in accepted:
        if signature.parameters[name].default is inspect.Parameter.empty and name not in parameters:
            return f"workload.parameters.{name} is missing: {listed}"
    return f"workload.parameters: {error}. {listed}"


def _spelled(parameters: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {value!r}" for name, value in parameters.items()) or "no parameters"


def _check_goal(job: Job, workload: Workload) -> None:
    goal, metric = job.goal, workload.metric
    name = type(workload).__name__
    if goal.metric != metric.name:
        raise JobError(
            f"goal.metric = {goal.metric!r}: {name} scores {metric.name!r}. Change goal.metric to that name"
        )
    if goal.maximize != (metric.direction == "maximize"):
        raise JobError(
            f"goal.direction = {goal.direction!r}: {name} is to {metric.direction} {metric.name}. "
            "Change goal.direction"
        )
    if not metric.lower <= goal.target <= metric.upper:
        raise JobError(
            f"goal.target = {goal.target:g} is not a value {metric.name} of {name} can have; "
            f"allowed is {metric.lower:g} to {metric.upper:g}"
        )
