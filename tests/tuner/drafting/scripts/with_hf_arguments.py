"""Arguments of Hugging Face's Trainer; prints dictionaries as its progress callback does."""

from dataclasses import dataclass, field

from pretended import Training
from transformers import HfArgumentParser, TrainingArguments


@dataclass
class ModelArguments:
    model_name_or_path: str = field(default="tiny", metadata={"help": "Name of the model."})


model, args = HfArgumentParser((ModelArguments, TrainingArguments)).parse_args_into_dataclasses()
training = Training(args.per_device_train_batch_size, args.learning_rate, args.seed)
print("***** Running training *****\n  Num examples = 2,000\n  Instantaneous batch size per device = 32")
for epoch in range(1, int(args.num_train_epochs) + 1):
    training.epoch()
    print(
        {
            "loss": round(training.loss, 4),
            "grad_norm": 1.25,
            "learning_rate": args.learning_rate,
            "epoch": float(epoch),
        }
    )
    scores = {"eval_loss": round(1.1 * training.loss, 4), "eval_accuracy": round(training.accuracy, 4)}
    print(
        {**scores, "eval_runtime": 0.1, "eval_samples_per_second": 812.5, "epoch": float(epoch)}, flush=True
    )
