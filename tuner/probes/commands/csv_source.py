"""Metric source that reads rows of CSV files, also if each run writes a file with another name."""

from __future__ import annotations

import csv
import glob
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tuner.domain.metric_files import csv_lines, csv_table, shown
from tuner.probes.commands.metric_source import MetricSource, SourceContext
from tuner.probes.commands.progress_line import LineForm, ScriptLine

#: If the script rewrites a file and at least this many of its first rows stay the same, these rows are taken
#: as those of an earlier run.
_FEWEST_OLD_ROWS = 2
#: Largest part of a file that is read, bytes. The file is read again each time it changes.
_MOST_BYTES = 2**27
#: Matches a number in a path that the job file contains, such as the 0 in `version_0`.
_DIGITS = re.compile(r"\d+")


class CsvSource(MetricSource):
    """Reads rows of CSV files that the script appends to or rewrites.

    - Rows that existed before the slice belong to another run or an earlier slice, and are skipped.
    - A path may be a pattern, such as `version_*/metrics.csv`.
    - For example, if `version_0/metrics.csv` is configured and does not change, but `version_1/metrics.csv`
      does, the latter is read. Such a file, whose path differs only in a number, is called a sibling.

    Args:
        form: Specifies the names of the columns with the score and the training progress.
        paths: Paths of the files, or patterns of such paths; the files need not exist yet.
        siblings: Patterns of the paths of siblings.
    """

    is_buffered = True

    def __init__(self, form: LineForm, paths: Sequence[str], siblings: Sequence[str] = ()) -> None:
        super().__init__(form)
        self._paths, self._sibling_patterns = list(paths), list(siblings)
        self._files = {path: _CsvFile(path, self.warn, skip=True) for path in _matching(self._paths)}
        self._siblings = {path: _stat_of(path) for path in _matching(self._sibling_patterns)}
        self._has_rows = False

    @classmethod
    def open(cls, context: SourceContext) -> CsvSource:
        texts = context.metrics.paths
        siblings = [context.path_of(_DIGITS.sub("*", text)) for text in texts if _DIGITS.search(text)]
        form = LineForm(metrics=context.metrics)
        return cls(form, [str(path) for path in context.paths], [str(path) for path in siblings])

    @property
    def place(self) -> str:
        where = " and ".join(self._paths)
        return f"rows of a CSV file with a header in {where}, with columns {self.form.expected()}"

    def read(self, seen_at: float, *, has_ended: bool) -> list[ScriptLine]:
        for path in _matching(self._paths):
            self._files.setdefault(path, _CsvFile(path, self.warn, skip=False))
        if not self._has_rows:
            self._find_siblings()
        found = []
        for file in sorted(self._files.values(), key=lambda file: file.changed_at):
            for row in file.new_rows(has_ended=has_ended):
                self._has_rows = True
                text = ",".join(row.values())
                where = f"the row {shown(text)} of {file.path}"
                line = self.parse(row, seen_at, where=where, text=text)
                if line is not None:
                    found.append(line)
        return found

    def _find_siblings(self) -> None:
        """Adds each sibling that has changed to the list of files that are read.

        A sibling is a file whose path differs from a configured path only in a number.
        """
        for path in _matching(self._sibling_patterns):
            if path in self._files or _stat_of(path) == self._siblings.get(path):
                continue
            self._files[path] = _CsvFile(path, self.warn, skip=path in self._siblings)
            self.remarks[
                f"{path} is read instead of {' and '.join(self._paths)}, which did not change: write a "
                "pattern such as version_*/metrics.csv in workload.metrics.path"
            ] = None


class _CsvFile:
    """Reads the new rows of one CSV file, which the script appends to or rewrites."""

    def __init__(self, path: Path, warn: Callable[[str], None], *, skip: bool) -> None:
        self.path, self._warn = path, warn
        self._stat = _stat_of(path) if skip else None
        self._old = self._rows(has_ended=True) if skip else []
        self._seen = len(self._old)
        self._last = self._old
        self._warned: set[str] = set()

    @property
    def changed_at(self) -> int:
        """Time of the last change of the file, nanoseconds; 0 if the file does not exist."""
        stat = _stat_of(self.path)
        return 0 if stat is None else stat[1]

    def new_rows(self, *, has_ended: bool) -> list[dict[str, str]]:
        """Returns the rows that were added since the last call.

        Args:
            has_ended: Whether the script has ended; then the last row is complete even without a newline.
        """
        stat = _stat_of(self.path)
        if stat == self._stat and not has_ended:
            return []
        self._stat = stat
        rows = self._rows(has_ended=has_ended)
        if len(rows) < self._seen and self._is_being_rewritten(rows):
            return []
        before, self._last = self._last, rows
        if len(rows) < self._seen or not _are_same(rows, before[: self._seen]):  # the file was rewritten
            same = 0
            while same < min(len(rows), len(self._old)) and rows[same] == self._old[same]:
                same += 1
            self._seen = same if same >= _FEWEST_OLD_ROWS else 0
        new, self._seen = rows[self._seen :], len(rows)
        return new

    def _is_being_rewritten(self, rows: list[dict[str, str]]) -> bool:
        """Whether the script is rewriting the whole file and has not written all of its old rows yet."""
        return not rows or (len(self._last) > len(self._old) and _are_same(self._last, rows))

    def _rows(self, *, has_ended: bool) -> list[dict[str, str]]:
        found: list[dict[str, str]] = []
        lines = csv_lines(self.path, self._skip, most_bytes=_MOST_BYTES, has_ended=has_ended)
        try:
            found.extend(csv_table(lines)[1])
        except OSError:
            return []
        except csv.Error as error:
            # The reader of the csv module cannot continue after this error, such as a field that is too long.
            self._skip(f"the text after row {len(found)} of {self.path} is not a row of CSV: {error}")
        return found

    def _skip(self, words: str) -> None:
        if words not in self._warned:
            self._warned.add(words)
            self._warn(words)


def _are_same(rows: list[dict[str, str]], others: list[dict[str, str]]) -> bool:
    """Whether two lists of rows are the same up to the end of the shorter one."""
    return all(a == b for a, b in zip(rows, others, strict=False))


def _matching(patterns: Sequence[str]) -> list[Path]:
    """Returns the files that match at least one pattern, without duplicates.

    A pattern without wildcards is returned as a path even if the file does not exist.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        names = glob.glob(pattern, recursive=True) if glob.has_magic(pattern) else [pattern]  # noqa: PTH207
        for name in sorted(names):
            if Path(name).is_file() or not glob.has_magic(pattern):
                found[Path(name)] = None
    return list(found)


def _stat_of(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns
