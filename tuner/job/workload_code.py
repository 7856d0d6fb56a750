"""Computes a digest of a Workload's source code without importing the code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from pathlib import Path

from tuner.job.job_modules import importing_from

#: Maps the present name of each moved module to its old name. The digest is computed with the old names, so
#: it stays the same and old studies can be resumed.
_MOVED = {
    b"tuner.domain.errors": b"tuner.errors",
    b"tuner.domain.workload": b"tuner.workload",
    b"from paceline import": b"from tuner.workload import",
}

#: Size of the largest source file whose imports are followed, in bytes.
_MOST_BYTES = 2**20


def workload_code_digest(path: str, job_folder: Path) -> str:
    """Returns a digest of a Workload's source file and of the source files that it imports from its folder.

    - The digest depends on imported files in the folder of the Workload's module and in its subfolders. It
      does not depend on installed packages.
    - The function imports the packages that contain the module, but neither the module nor torch.

    Args:
        path: Import path of the Workload, `module:Class`.
        job_folder: Folder of the job file.

    Returns:
        Sixteen hexadecimal digits; the empty string if there is no source file.
    """
    files = workload_files(path, job_folder)
    if not files:
        return ""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        content = file.read_bytes()
        for new, old in _MOVED.items():
            content = content.replace(new, old)
        digest.update(content)
    return digest.hexdigest()[:16]


def workload_files(path: str, job_folder: Path) -> list[Path]:
    """Returns the source file of a Workload and the files that it imports from its folder, sorted.

    Args:
        path: Import path of the Workload, `module:Class`.
        job_folder: Folder of the job file.
    """
    module_name = path.partition(":")[0]
    source = _source_of(module_name, job_folder)
    return [] if source is None else with_imports(source, package=module_name.rpartition(".")[0])


def _source_of(module_name: str, job_folder: Path) -> Path | None:
    with importing_from(job_folder, module_name):
        try:
            spec = importlib.util.find_spec(module_name)
        except (ImportError, ValueError):
            return None
    if spec is None or spec.origin is None:
        return None
    source = Path(spec.origin)
    return source if source.suffix == ".py" and source.is_file() else None


def with_imports(source: Path, package: str) -> list[Path]:
    """Returns the file of a module and all files in its folder or below that it imports, sorted."""
    folder = source.parent
    found: set[Path] = set()
    waiting = [source]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        for name in _imported_names(file):
            relative = name.removeprefix(f"{package}.") if package else name
            candidate = folder.joinpath(*relative.split("."))
            for path in (candidate.with_suffix(".py"), candidate / "__init__.py"):
                if path.is_file():
                    waiting.append(path)
    return sorted(found)


def _imported_names(file: Path) -> list[str]:
    try:
        if file.stat().st_size > _MOST_BYTES:
            return []
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            names += [module, *(f"{module}.{alias.name}".lstrip(".") for alias in node.names)]
    return [name for name in names if name]
