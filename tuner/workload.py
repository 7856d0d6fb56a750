"""Deprecated import path of `Workload` and its settings, removed in version 0.2: import from `paceline`."""

import warnings

from tuner.domain.errors import DataNotFoundError as DataNotFoundError
from tuner.domain.workload import *  # noqa: F403

warnings.warn("import from paceline instead of tuner.workload, which goes in 0.2", DeprecationWarning, 2)
