"""Import modules from a job's folder, separately for each job; delay interrupts during imports."""

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

#: Packages of Paceline, which a folder of the same name beside a job file must not replace.
OWN_PACKAGES = frozenset({"search_spaces", "tuner", "storage", "cli"})

_earlier_folders: set[Path] = set()


@contextlib.contextmanager
def importing_from(job_folder: Path, module_name: str) -> Iterator[None]:
    """Make a job's folder the first place that imports search, while the context is active.

    Afterwards it is the last place: late imports of the workload still succeed, and a file that is named
    like an installed module does not hide that module. Modules from the folders of other jobs are removed,
    so that one process can run many jobs.
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
    """Whether the missing module is the requested one or a package that contains it."""
    missing = error.name or ""
    return module_name == missing or module_name.startswith(f"{missing}.")


def similar_module(module_name: str, job_folder: Path) -> str:
    """A hint at an existing module with a similar name; see `did_you_mean`."""
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
    """Remove the modules that were imported from a folder, but not from environments below it."""
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
    """Delay SIGINT and SIGTERM until the block has ended; does nothing outside the main thread.

    Importing torch calls Python from C++. A `KeyboardInterrupt` there would abort the process with a page of
    stack frames instead of ending the command.
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
