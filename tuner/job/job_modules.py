"""Imports modules from the folder of a job, and delays interrupts during imports."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import signal
import sys
import threading
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

from tuner.domain.errors import did_you_mean

#: Packages of Paceline. A folder with the same name beside a job file must not replace them.
OWN_PACKAGES = frozenset({"search_spaces", "tuner", "storage", "cli"})

_earlier_folders: set[Path] = set()


@contextlib.contextmanager
def importing_from(job_folder: Path, module_name: str) -> Iterator[None]:
    """Context manager that puts the folder of a job first in `sys.path`.

    - When the context ends, the folder becomes the last entry of `sys.path`. So later imports of the Workload
      still find its modules, but a file in the folder does not hide an installed module of the same name.
    - Modules that were imported from the folders of other jobs are removed, so one process can run many jobs.
    - If the module belongs to Paceline, nothing is changed.

    Args:
        job_folder: Folder of the job file.
        module_name: Name of the module that is imported in the context.
    """
    folder = job_folder.resolve()
    place = str(folder)
    if module_name.partition(".")[0] in OWN_PACKAGES:
        yield
        return
    for other in _earlier_folders - {folder}:
        _forget(other)
    _earlier_folders.add(folder)
    sys.path[:] = [place, *(entry for entry in sys.path if entry != place)]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path.remove(place)
        sys.path.append(place)


def is_missing_itself(error: ModuleNotFoundError, module_name: str) -> bool:
    """Whether the module that an import did not find is `module_name` or a package that contains it."""
    missing = error.name or ""
    return module_name == missing or module_name.startswith(f"{missing}.")


def similar_module(module_name: str, job_folder: Path) -> str:
    """Returns a hint with the name of a similar existing module, such as "; did you mean 'x'?"."""
    package, _, last = module_name.rpartition(".")
    search = [str(job_folder)]
    if package:
        try:
            search = list(importlib.import_module(package).__path__)
        except (ImportError, AttributeError):
            search = []
    names = [module.name for module in pkgutil.iter_modules(search)]
    return did_you_mean(last, names, f"'{package}.{{}}'" if package else "'{}'")


def _forget(folder: Path) -> None:
    """Removes the modules that were imported from a folder from Python's table of modules.

    Packages that are installed in a virtual environment inside the folder are kept.
    """
    place = str(folder)
    sys.path[:] = [entry for entry in sys.path if entry != place]
    for name in {loaded.partition(".")[0] for loaded in sys.modules} - OWN_PACKAGES:
        file = getattr(sys.modules.get(name), "__file__", None)
        is_inside = file and Path(file).resolve() in (folder / f"{name}.py", folder / name / "__init__.py")
        if is_inside and PathFinder.find_spec(name, [place]) is not None:
            for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[loaded]


@contextlib.contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Context manager that delays SIGINT and SIGTERM until its end. Outside the main thread it does nothing.

    The import of torch calls Python from C++. A `KeyboardInterrupt` during such a call would abort the
    process with a long stack trace.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pending: list[int] = []
    before = {
        number: signal.signal(number, lambda received, _frame: pending.append(received))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if pending:
            signal.raise_signal(pending[0])
