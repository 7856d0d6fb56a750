"""Prints as PyTorch's MNIST example does."""

import argparse

from pretended import SIZE, Training

parser = argparse.ArgumentParser(description="An example")
parser.add_argument(
    "--batch-size", type=int, default=32, metavar="N", help="input batch size for training (default: 32)"
)
parser.add_argument(
    "--test-batch-size", type=int, default=1000, metavar="N", help="for testing (default: 1000)"
)
parser.add_argument(
    "--epochs", type=int, default=20, metavar="N", help="number of epochs to train (default: 20)"
)
parser.add_argument("--lr", type=float, default=0.05, metavar="LR", help="learning rate (default: 0.05)")
parser.add_argument("--dry-run", action="store_true", help="quickly check a single pass")
parser.add_argument("--seed", type=int, default=1, metavar="S", help="random seed (default: 1)")
parser.add_argument("--log-interval", type=int, default=10, metavar="N", help="batches between two lines")
parser.add_argument("--checkpoint", default="model.pt", help="where to save after each epoch")
parser.add_argument("--resume", help="checkpoint to resume from")
args = parser.parse_args()

training = Training(args.batch_size, args.lr, args.seed)
if args.resume:
    training.load(args.resume)
for epoch in range(1 + training.samples // SIZE, args.epochs + 1):
    for i in range(training.steps_per_epoch):
        training.step()
        if i % args.log_interval == 0:
            done = i * args.batch_size
            print(
                f"Train Epoch: {epoch} [{done}/{SIZE} ({100 * done / SIZE:.0f}%)]\tLoss: {training.loss:.6f}"
            )
    right = round(10_000 * training.accuracy)
    print(
        f"\nTest set: Average loss: {training.loss:.4f}, Accuracy: {right}/10000 ({right / 100:.2f}%)\n",
        flush=True,
    )
    training.save(args.checkpoint)
