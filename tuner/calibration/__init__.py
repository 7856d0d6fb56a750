"""Calibration: measures the times of steps, all-reduces and messages on the machines of a job."""

from tuner.calibration.constants import Constants, Figure, Link
from tuner.calibration.measuring import calibrate
from tuner.calibration.plan import CalibrationPlan, Effort
from tuner.calibration.section_text import machine_section

__all__ = [
    "CalibrationPlan",
    "Constants",
    "Effort",
    "Figure",
    "Link",
    "calibrate",
    "machine_section",
]
