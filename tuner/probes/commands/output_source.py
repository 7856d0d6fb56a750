"""Metric source that reads printed progress lines by regular expressions.

Keras logs such as `Epoch 3/10 ... loss: 0.3 - acc: 0.9` are read here, by the patterns of
`workload.metrics.pattern`; `tuner/drafting/line_patterns.py` has the patterns that `paceline init` suggests.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from tuner.job import MetricsSection
from tuner.launchers import LogFile, LogReader
from tuner.probes.commands.metric_source import DISAGREE, MetricSource, SourceContext, shown
from tuner.probes.commands.progress_line import ANSI, LineForm, ScriptLine

#: Words in lines that are likely to hold a score.
_SCORE_WORDS = re.compile(
    r"(?<![a-z])(acc|accuracy|loss|score|auc|auroc|f1|metric|eval|val|valid|validation|test|error|err|perplexity"
    r"|ppl|bleu|rouge|iou|dice|precision|recall|reward|return|psnr|fid|wer|cer|map|mse|mae|rmse|top\d?)(?![a-z])",
    re.IGNORECASE,
)
#: What scripts print when they resume.
_RESUMES = re.compile(
    r"\b(resum\w*|restor\w*|load(ed|ing)|continu\w*)\b.{0,60}\b(checkpoint|ckpt|weights|state|snapshot|epoch|step)s?\b"
    r"|\.(ckpt|pth?|safetensors|npz)\b.{0,40}\b(loaded|restored)\b",
    re.IGNORECASE,
)
#: Lines of a traceback.
_NO_SCORE = re.compile(r"\s*(File \"|Traceback |raise |\w*(Error|Exception|Warning)\b)")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?%?|\bnan\b|\binf\b", re.IGNORECASE)
#: Bytes that one call reads at most, and a call after the script has ended.
_MOST_BYTES, _MOST_BYTES_AT_END = 2**22, 2**26
#: Newest positions with a value that are stored to compare the values of other ranks.
_MOST_COMPARED = 200
#: The user is told once another rank has this many matches and the rank that counts has none.
_MANY_MATCHES = 3

#: How launchers and scripts name the rank of a line if all ranks print into one stream.
_RANK_PREFIX = re.compile(
    r"^\s*\[default(\d+)\]:|[\[(<](?:global[ _]?)?rank[ =:_]*(\d+)[\])>:,]|^\s*\[1,(\d+)\]<std(?:out|err)>",
    re.IGNORECASE,
)

Key = tuple[float | None, float | None, float | None]


class OutputSource(MetricSource):
    """Matches of regular expressions in the output of the script.

    All matches of a line are read; a position and a value on one line are one report. Terminal colors are
    removed. The output of one rank counts; the values of other ranks are only compared with it. Each rank has
    a log of its own, or all ranks print into one, with prefixes such as `[rank1]:`.

    Args:
        form: The names of fields, which are the names of the groups.
        patterns: The regular expressions.
        log_files: Returns the log of each process that the launcher started, by node or rank.
        rank: The rank whose output counts, or the node if there is one process a node.
        read_every: Seconds between two reads.
    """

    def __init__(
        self,
        form: LineForm,
        patterns: Sequence[str],
        log_files: Callable[[], Mapping[int, LogFile]],
        *,
        rank: int = 0,
        read_every: float = 0.1,
    ) -> None:
        super().__init__(form)
        self._patterns = [re.compile(pattern) for pattern in patterns]
        self._log_files, self._rank, self._every = log_files, rank, read_every
        self._readers: dict[int, LogReader] = {}
        self._read_at = -math.inf
        self._least_lag = math.inf
        self._values: dict[Key, float] = {}
        self._num_matches: dict[int, int] = {}
        #: Whether there is a single log, and whether its lines name their rank.
        self._is_one_stream = self._names_ranks = False

    @classmethod
    def open(cls, context: SourceContext) -> OutputSource:
        metrics = context.metrics
        groups = LineForm(metrics=MetricsSection())
        return cls(groups, metrics.patterns, context.log_files, rank=metrics.rank)

    @property
    def place(self) -> str:
        return "output that matches " + " or ".join(f"'{pattern.pattern}'" for pattern in self._patterns)

    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
        if seen_at - self._read_at < self._every and not has_ended:
            return []
        self._read_at = seen_at
        found: list[ScriptLine] = []
        log_files = self._log_files()
        self._is_one_stream = len(log_files) == 1
        for copy, log_file in log_files.items():
            reader = self._readers.setdefault(copy, LogReader({copy: log_file}))
            limit = _MOST_BYTES_AT_END if has_ended else _MOST_BYTES
            lines = reader.read(limit, has_ended=has_ended)
            while has_ended and reader.num_unread:
                lines += reader.read(limit, has_ended=True)
            # The clock of a node differs from the prober's by the delay of its fastest line at most.
            for _, text, written_at in lines:
                self._least_lag = min(self._least_lag, seen_at - written_at)
                found += self._of_line(copy, text, written_at + self._least_lag)
        return found

    def _of_line(self, copy: int, text: str, at: float) -> list[ScriptLine]:
        plain = ANSI.sub("", text)
        matches = sorted(
            (match for pattern in self._patterns for match in pattern.finditer(plain)),
            key=lambda match: match.start(),
        )
        copy, counts = self._rank_of(copy, plain)
        if self.resume_words is None and counts and _RESUMES.search(plain):
            self.resume_words = shown(plain)
        if not matches:
            if counts:
                self._add_if_like_score(plain)
            return []
        self._num_matches[copy] = self._num_matches.get(copy, 0) + 1
        lines = []
        for fields in _joined([match.groupdict() for match in matches]):
            try:
                line = self.form.line(fields, seen_at=at, text=plain)
            except ValueError as error:
                if counts:
                    self.warn(f"{shown(plain)} in the output {error}")
                continue
            if line is not None:
                lines.append(line)
        if counts:
            self._keep(lines)
            return lines
        self._compare(copy, lines)
        return []

    def _rank_of(self, copy: int, text: str) -> tuple[int, bool]:
        """The rank that printed a line, and whether that rank counts.

        A single process may start all ranks, as torchrun does, and pass on what they print: then the line
        itself may name its rank.
        """
        named = _RANK_PREFIX.search(text) if self._is_one_stream else None
        if named is None:
            return copy, copy == self._rank or (self._is_one_stream and self._names_ranks)
        self._names_ranks = True
        rank = next(int(digits) for digits in named.groups() if digits is not None)
        return rank, rank == self._rank

    def _add_if_like_score(self, text: str) -> None:
        """Stores a line that looks like a score but does not match."""
        is_likely = _SCORE_WORDS.search(text) and _NUMBER.search(text) and not _NO_SCORE.match(text)
        if is_likely:
            self.add_unmatched(_NUMBER.sub("#", text), shown(text))

    def _keep(self, lines: Sequence[ScriptLine]) -> None:
        for line in lines:
            if line.value is not None and line.has_position:
                self._values[_key(line)] = line.value
        while len(self._values) > _MOST_COMPARED:
            del self._values[next(iter(self._values))]

    def _compare(self, copy: int, lines: Sequence[ScriptLine]) -> None:
        """Compares the values of another rank with those of the rank that counts."""
        for line in lines:
            own = self._values.get(_key(line))
            if line.value is None or own is None or math.isclose(own, line.value, rel_tol=1e-6):
                continue
            if not math.isnan(own) and not self.disagreements:
                self.disagreements.append(
                    f"{DISAGREE}: rank {self._rank} prints {own:g} where rank {copy} prints "
                    f"{line.value:g}; only "
                    f"rank {self._rank} counts (workload.metrics.rank)"
                )
        if self._num_matches.get(copy) == _MANY_MATCHES and not self._num_matches.get(self._rank):
            self.remarks[
                f"rank {copy} prints lines that match, but rank {self._rank} prints none: to read rank "
                f"{copy}, set workload.metrics.rank = {copy}"
            ] = None


def _joined(found: Sequence[Mapping[str, str | None]]) -> list[dict[str, str | None]]:
    """The reports of a line: adjacent matches that do not repeat a field are one report."""
    reports: list[dict[str, str | None]] = []
    for groups in found:
        fields = {name: text for name, text in groups.items() if text is not None}
        if not fields:
            continue
        if reports and not reports[-1].keys() & fields.keys():
            reports[-1] |= fields
        else:
            reports.append(dict(fields))
    return reports


def _key(line: ScriptLine) -> Key:
    return line.epoch, line.step, line.samples
