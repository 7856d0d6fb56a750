from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from tuner.job import job_template, load_job
from tuner.job.loading import RENAMED_KEYS, with_new_keys


def test_renamed_keys_work_with_a_warning() -> None:
    data = tomllib.loads('[goal]\nhold = 3\n[cluster.ray]\npatience = "5m"')
    with pytest.warns(FutureWarning) as warned:
        renamed = with_new_keys(data, Path("job.toml"))
    assert renamed == {"goal": {"consecutive_scores": 3}, "cluster": {"ray": {"node_timeout": "5m"}}}
    words = [str(warning.message) for warning in warned]
    assert "job.toml: cluster.ray.patience is now called cluster.ray.node_timeout" in words[0]
    assert "job.toml: goal.hold is now called goal.consecutive_scores" in words[1]
    assert len(words) == len(RENAMED_KEYS)


def test_a_job_file_with_an_old_key_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "job.toml"
    path.write_text(job_template().replace("[goal]\n", "[goal]\nhold = 3\n"))
    with pytest.warns(FutureWarning, match=r"goal\.hold is now called"):
        assert load_job(path).goal.consecutive_scores == 3


def test_an_old_key_is_left_where_the_new_one_is_stated() -> None:
    data = {"goal": {"hold": 3, "consecutive_scores": 2}}
    assert with_new_keys(data, Path("job.toml")) == data
