"""What the name of a number means: an epoch, a step, a sample count, or a metric with its direction."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

Field = Literal["epoch", "step", "samples"]
Split = Literal["validation", "test", "unknown", "training"]
Direction = Literal["maximize", "minimize"]

#: The preferred data split first; each later one adds this to a score's rank.
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
#: Words of a metric: its name in the job file (None for the word itself), direction, and rank (0 is best).
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
#: Words that may follow the word of a metric.
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
#: A label with any of these words names no metric of the model.
_NO_METRIC = (
    "lr learning time eta best norm grad memory mem speed throughput top3 top5 top10 acc3 acc5 prec5 seed "
    "rank patience counter temperature min max std seconds sec runtime second ms momentum decay scale count "
    "number size params parameters workers threads baseline"
)
_IGNORED = set(_NO_METRIC.split())


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """What a number means.

    Args:
        field: Position in the training that it counts; None for a metric.
        metric: Name of the metric in a job file; empty for a position.
        direction: Which values are better.
        split: Data split of the score.
        rank: How well the score describes a training; the smallest is preferred.
        is_part: Whether other words qualify the metric, as in `kl_loss`.
    """

    field: Field | None = None
    metric: str = ""
    direction: Direction = "maximize"
    split: Split = "unknown"
    rank: int = 0
    is_part: bool = False

    def of(self, split: Split) -> Meaning:
        """The same metric on another data split."""
        moved = SPLITS.index(split) - SPLITS.index(self.split)
        return replace(self, split=split, rank=self.rank + _SPLIT_RANK * moved)


def words_of(label: str) -> list[str]:
    """The words of a label, in lower case: `val_acc@1` gives `val`, `acc1`."""
    joined = re.sub(r"(?<=[A-Za-z])[@-](?=\d)", "", label)
    joined = re.sub(r"m(IoU|AP|Acc)(?![a-z])|IoU", lambda found: found[0].lower(), joined)
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", joined).lower()
    return re.findall(r"[a-z]+\d*|\d+", spaced)


def split_of(label: str) -> Split | None:
    """The data split that a label names; the last one if it names several."""
    found = [_SPLIT_WORDS[word] for word in words_of(label) if word in _SPLIT_WORDS]
    return found[-1] if found else None


def meaning_of(label: str, context: Split | None = None) -> Meaning | None:
    """What a number with this label means; None if it is neither a position nor a metric.

    Args:
        label: The words before the number, or the name of its column.
        context: Data split that earlier words of the line name.
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
