"""A small convolutional network learns handwritten digits (1,797 images of 8 x 8 pixels).

python examples/digits_cnn.py --epochs 12
"""

import argparse
import time

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn


class Net(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(2 * width * 16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = F.relu(self.conv1(x))
        h = F.max_pool2d(F.relu(self.norm(self.conv2(h))), 2)
        return self.head(self.drop(h.flatten(1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.manual_seed(args.seed)

    images, labels = load_digits(return_X_y=True)
    x = torch.tensor(images, dtype=torch.float32).view(-1, 1, 8, 8).to(args.device) / 16
    y = torch.tensor(labels).to(args.device)
    order = torch.randperm(len(x))
    train, test = order[:1500], order[1500:]

    net = Net(args.width).to(args.device)
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    steps = args.epochs * (len(train) // args.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, total_steps=steps)
    start = time.perf_counter()
    for epoch in range(args.epochs):
        net.train()
        shuffled = train[torch.randperm(len(train))]
        for i in range(len(train) // args.batch):
            batch = shuffled[i * args.batch : (i + 1) * args.batch]
            optimizer.zero_grad()
            F.cross_entropy(net(x[batch]), y[batch]).backward()
            optimizer.step()
            schedule.step()
        net.eval()
        with torch.no_grad():
            logits = net(x[test])
            loss = F.cross_entropy(logits, y[test]).item()
            accuracy = (logits.argmax(1) == y[test]).float().mean().item()
        print(f"epoch {epoch + 1:2d}  test loss {loss:.4f}  accuracy {accuracy:.3f}", flush=True)
    print(f"{steps} steps in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    main()
