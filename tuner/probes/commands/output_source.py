"""Metric source that reads the printed output of a script by the regular expressions of the job file.

For example, it reads the Keras line `Epoch 3/10 ... loss: 0.3 - acc: 0.9` by `workload.metrics.pattern`. The
patterns that `paceline init` suggests are in `tuner/drafting/line_patterns.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence

from tuner.domain.metric_files import shown
from tuner.job import MetricsSection
from tuner.launchers import LogFile, LogReader
from tuner.launchers.log_reader import LONGEST_LINE_BYTES
from tuner.probes.commands.metric_source import DISAGREE, MetricSource, SourceContext
from tuner.probes.commands.progress_line import ANSI, LineForm, ScriptLine

#: Matches words which show that a line probably contains a score.
_SCORE_WORDS = re.compile(
    r"(?<![a-z])(acc|accuracy|loss|score|auc|auroc|f1|metric|eval|val|valid|validation|test|error|err|perplexity"
    r"|ppl|bleu|rouge|iou|dice|precision|recall|reward|return|psnr|fid|wer|cer|map|mse|mae|rmse|top\d?)(?![a-z])",
    re.IGNORECASE,
)
#: Matches lines that scripts print when they resume from a checkpoint.
_RESUMES = re.compile(
    r"\b(resum\w*|restor\w*|load(ed|ing)|continu\w*)\b.{0,60}\b(checkpoint|ckpt|weights|state|snapshot|epoch|step)s?\b"
    r"|\.(ckpt|pth?|safetensors|npz)\b.{0,40}\b(loaded|restored)\b",
    re.IGNORECASE,
)
#: Matches lines of a traceback, which never contain a score.
_NO_SCORE = re.compile(r"\s*(File \"|Traceback |raise |\w*(Error|Exception|Warning)\b)")
_NUMBER = re.compile(r"[-+]?\d+(?:[.,]\d+)?(?:[eE][-+]?\d+)?%?|\bnan\b|\binf\b", re.IGNORECASE)
#: Largest number of bytes that are read at once while the script runs, and after the script has ended.
_MOST_BYTES, _MOST_BYTES_AT_END = 2**22, 2**26
#: Largest number of scores of the selected rank that are stored, to compare those of other ranks with them.
_MOST_COMPARED = 200
#: Paceline warns if another rank has this many matching lines and the selected rank has none.
_MANY_MATCHES = 3

#: A line with fewer characters is not a part of a longer line; a character has at most four bytes.
_LONG_PART = LONGEST_LINE_BYTES // 4 - 1

#: Matches the prefix with the rank that launchers and scripts add if all ranks print into one stream.
_RANK_PREFIX = re.compile(
    r"^\s*\[default(\d+)\]:|[\[(<](?:global[ _]?)?rank[ =:_]*(\d+)[\])>:,]|^\s*\[1,(\d+)\]<std(?:out|err)>",
    re.IGNORECASE,
)

Key = tuple[float | None, float | None, float | None]


class OutputSource(MetricSource):
    """Reads the matches of regular expressions in the output of the script.

    - All matches in a line are read. If one match has the training progress (such as the epoch) and another
      the score, both become one report.
    - Terminal colors are removed first.
    - Only the output of the selected rank is used. The values of other ranks are compared with it, to warn
      if they differ.
    - Each rank may have its own log file, or all ranks may print into one log file with prefixes such as
      `[rank1]:`.

    Args:
        form: Specifies the names of the groups in the regular expressions that match the score and the
            training progress.
        patterns: The regular expressions; a line may match several.
        log_files: Function that returns the log file of each process of the launcher, by node or rank.
        rank: The selected rank, or the selected node if the launcher starts one process per node.
        read_every: Shortest time between two reads of the output, seconds.
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
        #: Whether there is a single log file, and whether its lines start with the rank that printed them.
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
            # Write times are read from the clock of the node. Its difference to the prober's monotonic clock
            # is estimated as the shortest time between writing and reading of any line.
            for _, text, written_at in lines:
                self._least_lag = min(self._least_lag, seen_at - written_at)
                found += self._of_line(copy, text, written_at + self._least_lag)
        return found

    def _of_line(self, copy: int, text: str, at: float) -> list[ScriptLine]:
        plain = ANSI.sub("", text)
        if len(text) > _LONG_PART and len(text.encode()) >= LONGEST_LINE_BYTES - 3:
            self.remarks[
                f"the script printed a line longer than {LONGEST_LINE_BYTES // 2**10} KiB, which is read in "
                "parts: print each score in a line of its own"
            ] = None
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
        """Returns the rank that printed a line, and whether it is the selected rank.

        If a single process starts all ranks and prints their output, as torchrun does, the line may start
        with the rank.

        Args:
            copy: The rank or node from whose log file the line was read.
            text: The line.
        """
        named = _RANK_PREFIX.search(text) if self._is_one_stream else None
        if named is None:
            return copy, copy == self._rank or (self._is_one_stream and self._names_ranks)
        self._names_ranks = True
        rank = next(int(digits) for digits in named.groups() if digits is not None)
        return rank, rank == self._rank

    def _add_if_like_score(self, text: str) -> None:
        """Counts a line that looks like a score but matches no pattern."""
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
        """Compares the scores of another rank with those of the selected rank at the same epoch and step.

        Args:
            copy: Index of the other rank.
            lines: New lines of the other rank.
        """
        for line in lines:
            own = self._values.get(_key(line))
            if line.value is None or own is None or math.isclose(own, line.value, rel_tol=1e-6):
                continue
            if not math.isnan(own) and not self.disagreements:
                self.disagreements.append(
                    f"{DISAGREE}: rank {self._rank} prints {own:g} where rank {copy} prints "
                    f"{line.value:g}; only the "
                    f"values of rank {self._rank} are used (workload.metrics.rank)"
                )
        if self._num_matches.get(copy) == _MANY_MATCHES and not self._num_matches.get(self._rank):
            self.remarks[
                f"rank {copy} prints lines that match the pattern, rank {self._rank} none: to read rank "
                f"{copy}, set workload.metrics.rank = {copy}"
            ] = None


def _joined(found: Sequence[Mapping[str, str | None]]) -> list[dict[str, str | None]]:
    """Joins the matches in one line: adjacent matches with different fields become one report.

    Args:
        found: For each match, in order: maps the name of each group to its text; to None if it did not match.
    """
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
