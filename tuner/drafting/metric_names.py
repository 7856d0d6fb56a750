"""Recognizes the names of metrics, and of epochs, steps and sample counts, in the output of scripts."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Field = Literal["epoch", "step", "samples"]
Split = Literal["validation", "test", "unknown", "training"]
Direction = Literal["maximize", "minimize"]

#: Data splits on which a score may be measured, the preferred one first. A score with a smaller rank is
#: preferred as the metric of the job; `_SPLIT_RANK` is added to the rank for each split that precedes that of
#: the score.
SPLITS: tuple[Split, ...] = ("validation", "test", "unknown", "training")
_SPLIT_RANK = 10
_WORDS_OF_SPLITS: dict[Split, str] = {
    "validation": "val valid validation validating validate dev eval evaluation evaluating evaluate heldout "
    "holdout",
    "test": "test testing",
    "training": "train training trn",
}
_WORDS_OF_FIELDS: dict[Field, str] = {
    "epoch": "epoch epochs ep",
    "step": "step steps iter iters iteration iterations it itr batch batches update updates round boosting",
    "samples": "samples sample examples example images seen",
}
_SPLIT_WORDS = {word: split for split, words in _WORDS_OF_SPLITS.items() for word in words.split()}
_FIELDS = {word: field for field, words in _WORDS_OF_FIELDS.items() for word in words.split()}
#: Groups of words by which metrics are recognized. For each group: the words, the metric's name in the job
#: file (None for the word itself), its direction, and its rank (a metric with a smaller rank is preferred).
_METRICS: tuple[tuple[str, str | None, Direction, int], ...] = (
    ("accuracy acc top1 prec1 acc1", "accuracy", "maximize", 0),
    ("f1 auc auroc ap map miou iou dice bleu rouge psnr ssim r2 reward return", None, "maximize", 1),
    ("mcc ndcg hits score success em recall precision", None, "maximize", 1),
    ("bpc bpb", "bits_per_character", "minimize", 1),
    ("perplexity ppl mse mae rmse wer cer fid mape logloss rmsle", None, "minimize", 2),
    ("error err", "error_rate", "minimize", 2),
    ("loss nll ce xent elbo objective", "loss", "minimize", 3),
)
_QUANTITIES = {
    word: (name or word, direction, rank)
    for words, name, direction, rank in _METRICS
    for word in words.split()
}
#: Words that may follow the name of a metric, as in `error rate`.
_TAILS = {
    "rate",
    "score",
    "avg",
    "mean",
    "average",
    "macro",
    "micro",
    "weighted",
    "1",
    "epoch",
    "per",
    "step",
}
#: If the text before a number contains any of these words, the number is not the value of a metric.
_NO_METRIC = (
    "lr learning time eta best norm grad memory mem speed throughput top3 top5 top10 acc3 acc5 prec5 seed "
    "rank patience counter temperature min max std seconds sec runtime second ms momentum decay scale count "
    "number size params parameters workers threads baseline"
)
_IGNORED = set(_NO_METRIC.split())


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The meaning of a number in the output of a script: a metric, or a measure of training progress.

    Args:
        field: Measure of training progress (`epoch`, `step` or `samples`); None for a metric.
        metric: Name of the metric in a job file; empty for training progress.
        direction: `maximize` if larger values of the metric are better, `minimize` if smaller ones are.
        split: Data split on which the metric was measured.
        rank: Preference among several metrics; the metric with the smallest number is preferred.
        is_part: Whether other words describe the metric, as in `kl_loss`, so it may be only part of a score.
    """

    field: Field | None = None
    metric: str = ""
    direction: Direction = "maximize"
    split: Split = "unknown"
    rank: int = 0
    is_part: bool = False

    def of(self, split: Split) -> Meaning:
        """Returns the same metric on another data split, such as `validation`, with the rank for that split.

        Args:
            split: The data split of the result.
        """
        moved = SPLITS.index(split) - SPLITS.index(self.split)
        return replace(self, split=split, rank=self.rank + _SPLIT_RANK * moved)


def words_of(label: str) -> list[str]:
    """Splits the name of a number into words in lower case: `val_acc@1` is split into `val` and `acc1`."""
    joined = re.sub(r"(?<=[A-Za-z])[@-](?=\d)", "", label)
    joined = re.sub(r"m(IoU|AP|Acc)(?![a-z])|IoU", lambda found: found[0].lower(), joined)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", joined).lower()
    return re.findall(r"[a-z]+\d*|\d+", spaced)


def split_of(label: str) -> Split | None:
    """Returns the data split that the name of a number contains, such as `validation` for `val_acc`.

    Args:
        label: The words before the number, or the name of its column.

    Returns:
        The last data split in the name; None if there is none.
    """
    found = [_SPLIT_WORDS[word] for word in words_of(label) if word in _SPLIT_WORDS]
    return found[-1] if found else None


def meaning_of(label: str, context: Split | None = None) -> Meaning | None:
    """Recognizes the meaning of a number by its name.

    Args:
        label: Name of the number: the words before it, or the name of its column.
        context: Data split that is printed earlier in the same line, used if `label` contains none; None if
            there is none.

    Returns:
        The meaning; None if the number is neither a measure of training progress nor a metric.
    """
    words = words_of(label)
    last = next((word for word in reversed(words) if word not in _SPLIT_WORDS and not word.isdecimal()), "")
    is_rate = "/" in label.rstrip("/") or {"best", "per", "time", "left"} & set(words)
    if last in _FIELDS and not is_rate:
        return Meaning(field=_FIELDS[last])
    metrics = [word for word in words if word in _QUANTITIES]
    known = {*_SPLIT_WORDS, *_QUANTITIES, *_TAILS}
    if not metrics or _IGNORED & set(words) or words[-1] not in known:
        return None
    metric, direction, rank = _QUANTITIES[metrics[-1]]
    split = split_of(label) or context or "unknown"
    return Meaning(
        metric=metric,
        direction=direction,
        split=split,
        rank=_SPLIT_RANK * SPLITS.index(split) + rank,
        is_part=any(word not in known | {"total", "overall"} and not word.isdecimal() for word in words),
    )
