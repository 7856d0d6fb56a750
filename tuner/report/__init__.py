"""Reports: render a recommendation and its evidence as HTML, Markdown, CSV, text and launch files."""

from tuner.report.content import ReportContent, UnansweredContent
from tuner.report.schema import recommendation_schema
from tuner.report.tables import Table, choices_table, probes_table
from tuner.report.terminal import recommendation_text
from tuner.report.writer import write_report, write_unanswered

__all__ = [
    "ReportContent",
    "Table",
    "UnansweredContent",
    "choices_table",
    "probes_table",
    "recommendation_schema",
    "recommendation_text",
    "write_report",
    "write_unanswered",
]
