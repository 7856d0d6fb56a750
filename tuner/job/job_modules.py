"""Imports modules that lie beside a job file, separately for each job."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import pkgutil
import sys
from collections.abc import Iterator
from importlib.machinery import PathFinder
from pathlib import Path

#: Paceline's own packages: a folder of the same name beside a job file must not take their place.
OWN_PACKAGES = frozenset({"search_spaces", "tuner", "storage", "cli"})

_earlier_folders: set[Path] = set()


@contextlib.contextmanager
def importing_from(job_folder: Path, module_name: str) -> Iterator[None]:
    """Lets imports find the modules in a job's folder first while the context is active.

    Afterwards the folder is the last place searched: late imports of the workload still succeed, and
    a file named like an installed module shadows nothing for the rest of the program. A module of the
    same name from another job's folder is forgotten, so that one process can serve many jobs.
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
    """Whether it is the module that was asked for, or a package above it, that is missing."""
    missing = error.name or ""
    return module_name == missing or module_name.startswith(f"{missing}.")


def nearest_module(module_name: str, job_folder: Path) -> str | None:
    """The name of an existing module that this one was probably meant to be, or None."""
    package, _, last = module_name.rpartition(".")
    if package:
        try:
            search = list(importlib.import_module(package).__path__)
        except (ImportError, AttributeError):
            search = []
    else:
        search = [str(job_folder)]
    names = [module.name for module in pkgutil.iter_modules(search)]
    near = difflib.get_close_matches(last, names, n=1)
    if not near:
        return None
    return f"{package}.{near[0]}" if package else near[0]


def _forget(folder: Path) -> None:
    # Only what is found in this very folder: an environment may lie somewhere below it.
    place = str(folder)
    sys.path[:] = [entry for entry in sys.path if entry != place]
    for name in {loaded.partition(".")[0] for loaded in sys.modules} - OWN_PACKAGES:
        if _lies_in(name, folder) and PathFinder.find_spec(name, [place]) is not None:
            for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
                del sys.modules[loaded]


def _lies_in(name: str, folder: Path) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    if file is None:
        return False
    path = Path(file).resolve()
    return path == folder / f"{name}.py" or path == folder / name / "__init__.py"
