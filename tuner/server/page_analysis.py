"""Draws the sections of the report that the page of a job shows, from what the database has of the study."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from threading import Lock

from markupsafe import Markup

from tuner.advice.interval_check import compared_predictions
from tuner.domain.ledger import PredictionRecord
from tuner.domain.recommendation import Recommendation
from tuner.domain.study_reads import StudyReads
from tuner.report.content import AnalysisContent
from tuner.report.pages import analysis_html
from tuner.server.measured import measured_seconds

#: Number of drawn jobs in memory. A job with 128 nodes and 11 curves has 63 kB.
_MOST_DRAWN = 64
#: Maximum number of points of a curve, and of predictions that are read at once.
_MOST_POINTS, _PREDICTIONS = 100, 1000


class DrawnAnalyses:
    """Draws the analysis of recommendations, and caches the newest: drawing takes 0.2 s or more of a core."""

    def __init__(self) -> None:
        # Settings of matplotlib are those of the process, so that only one thread may draw.
        self._lock = Lock()
        self._drawn: OrderedDict[tuple[int, float], Markup] = OrderedDict()

    def of_study(self, reads: StudyReads, study_id: int) -> Markup:
        """Returns the sections of the newest recommendation of a study.

        They are empty if there is no recommendation, or if another version of Paceline stored it in a form
        that this version cannot read.
        """
        stored, goal = reads.recommendation(study_id), reads.goal(study_id)
        if stored is None or not goal:
            return Markup("")
        try:
            answer = Recommendation.from_dict(stored)
        except ValueError:
            return Markup("")
        key = study_id, answer.created_at
        with self._lock:
            if key not in self._drawn:
                content = _content(reads, study_id, answer, str(goal["metric"]), float(goal["target"]))
                self._drawn[key] = analysis_html(content)
                if len(self._drawn) > _MOST_DRAWN:
                    self._drawn.popitem(last=False)
            return self._drawn[key]


def _content(
    reads: StudyReads, study_id: int, answer: Recommendation, metric: str, target: float
) -> AnalysisContent:
    forecasts = answer.analysis.curve_forecasts if answer.analysis else ()
    probes = [forecast.probe_id for forecast in forecasts]
    return AnalysisContent(
        recommendation=answer,
        metric=metric,
        target=target,
        curves=reads.curves(study_id, probes, most_points=_MOST_POINTS) if probes else {},
        checked=compared_predictions(_predictions(reads, study_id), measured_seconds(reads, study_id)),
    )


def _predictions(reads: StudyReads, study_id: int) -> Iterator[PredictionRecord]:
    """Reads the predictions of a study, oldest first."""
    after = 0
    while found := reads.predictions(study_id, after=after, limit=_PREDICTIONS):
        yield from (record for _, record in found)
        after = found[-1][0]
