from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def builder() -> ModuleType:
    """The builder of realistic content beside this file, loaded by path: tests are no package."""
    path = Path(__file__).with_name("content_builder.py")
    specification = importlib.util.spec_from_file_location("report_content_builder", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module
