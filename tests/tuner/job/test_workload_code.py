from __future__ import annotations

import subprocess
import sys

import pytest

from tuner.job import workload_code_digest


@pytest.fixture(autouse=True)
def path_as_before():
    before = list(sys.path)
    yield
    sys.path[:] = before


def test_the_digest_changes_with_the_module_and_with_what_it_imports_beside_it(tmp_path):
    main, part = tmp_path / "coded.py", tmp_path / "coded_part.py"
    main.write_text("from coded_part import thing")
    part.write_text("thing = 1")
    (tmp_path / "unrelated.py").write_text("x = 1")
    seen = [workload_code_digest("coded:Own", tmp_path)]
    part.write_text("thing = 2")
    seen.append(workload_code_digest("coded:Own", tmp_path))
    main.write_text("from coded_part import thing  # changed")
    seen.append(workload_code_digest("coded:Own", tmp_path))
    assert len(set(seen)) == 3
    (tmp_path / "unrelated.py").write_text("x = 2")
    assert workload_code_digest("coded:Own", tmp_path) == seen[-1]
    assert len(seen[-1]) == 16


def test_relative_imports_and_circles_are_followed(tmp_path):
    package = tmp_path / "coded_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "train.py").write_text("from .data import load")
    (package / "data.py").write_text("from coded_package import train")
    before = workload_code_digest("coded_package.train:Own", tmp_path)
    (package / "data.py").write_text("from coded_package import train\nx = 1")
    assert workload_code_digest("coded_package.train:Own", tmp_path) != before


def test_a_missing_module_has_no_digest(tmp_path):
    assert workload_code_digest("coded_nowhere:Own", tmp_path) == ""
    assert workload_code_digest("coded_nowhere.deeper:Own", tmp_path) == ""


def test_jobs_are_loaded_and_fingerprinted_without_torch(tmp_path):
    code = (
        "import sys, pathlib\n"
        "from tuner.job import load_job, job_template, job_schema, workload_code_digest, job_warnings\n"
        f"path = pathlib.Path({str(tmp_path / 'job.toml')!r})\n"
        "path.write_text(job_template())\n"
        "job = load_job(path)\n"
        "job_warnings(job), job_schema()\n"
        "assert job.fingerprint(workload_code_digest(job.workload.path, path.parent), 'cpu')\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_module_of_paceline_that_moved_keeps_the_digest_of_those_who_import_it(tmp_path):
    digests = set()
    for module in ("paceline", "tuner.workload", "tuner.domain.workload", "tuner.domain.cluster"):
        (tmp_path / "work.py").write_text(f"from {module} import Workload\n")
        digests.add(workload_code_digest("work:Work", tmp_path))
    assert len(digests) == 2
