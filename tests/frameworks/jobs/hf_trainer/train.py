"""Fine-tunes a small classifier with the Hugging Face Trainer. Options are those of TrainingArguments."""

import torch
from torch import nn
from transformers import (
    HfArgumentParser,
    PretrainedConfig,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint


class Classifier(PreTrainedModel):
    config_class = PretrainedConfig

    def __init__(self, config):
        super().__init__(config)
        self.network = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
        self.post_init()

    def forward(self, inputs, labels=None):
        logits = self.network(inputs)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)
    return [{"inputs": x, "labels": y} for x, y in zip(inputs, labels, strict=True)]


def compute_metrics(prediction):
    return {"accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())}


def main():
    (args,) = HfArgumentParser(TrainingArguments).parse_args_into_dataclasses()
    set_seed(args.seed)
    trainer = Trainer(
        model=Classifier(PretrainedConfig()),
        args=args,
        train_dataset=rows(4000, 1),
        eval_dataset=rows(800, 2),
        compute_metrics=compute_metrics,
    )
    last = get_last_checkpoint(args.output_dir) if args.resume_from_checkpoint else None
    trainer.train(resume_from_checkpoint=last)


if __name__ == "__main__":
    main()
