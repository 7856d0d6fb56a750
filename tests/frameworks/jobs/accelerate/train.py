"""A classifier trained with Hugging Face accelerate, which logs to TensorBoard."""

import argparse
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def rows(count, seed):
    inputs = torch.randn(count, 20, generator=torch.Generator().manual_seed(seed))
    labels = (inputs @ torch.randn(20, 4, generator=torch.Generator().manual_seed(0))).argmax(1)
    return TensorDataset(inputs, labels)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--project_dir", required=True)
    parser.add_argument("--per_device_batch_size", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--num_train_epochs", type=int, default=60)
    parser.add_argument("--resume_from_checkpoint", action="store_true")
    args = parser.parse_args()

    set_seed(0)
    project = ProjectConfiguration(args.project_dir, automatic_checkpoint_naming=True, total_limit=2)
    accelerator = Accelerator(log_with="tensorboard", project_config=project)
    accelerator.init_trackers("logs")
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=args.learning_rate)
    train = DataLoader(rows(8000, 1), batch_size=args.per_device_batch_size, shuffle=True)
    evaluation = DataLoader(rows(1000, 2), batch_size=500)
    model, optimizer, train, evaluation = accelerator.prepare(model, optimizer, train, evaluation)

    first_epoch = 0
    if args.resume_from_checkpoint:
        folders = Path(args.project_dir, "checkpoints").glob("checkpoint_*")
        last = max(folders, key=lambda folder: int(folder.name.rpartition("_")[2]))
        accelerator.load_state(str(last))
        first_epoch = int(last.name.rpartition("_")[2]) + 1
        project.iteration = first_epoch

    for epoch in range(first_epoch, args.num_train_epochs):
        model.train()
        for inputs, labels in train:
            loss = nn.functional.cross_entropy(model(inputs), labels)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        accelerator.save_state()
        model.eval()
        correct = []
        for inputs, labels in evaluation:
            with torch.no_grad():
                predictions = model(inputs).argmax(1)
            correct.append(accelerator.gather_for_metrics(predictions == labels))
        accuracy = torch.cat(correct).float().mean().item()
        step = (epoch + 1) * len(train)
        accelerator.log({"train_loss": loss.item(), "eval/accuracy": accuracy, "epoch": epoch}, step=step)
        accelerator.print(f"epoch {epoch}: {{'accuracy': {accuracy:.4f}}}")
    accelerator.end_training()


if __name__ == "__main__":
    main()
