"""Writes lenet_torch.npz: PyTorch's outputs, loss and gradients for the slides' Net.

Run by hand, with PyTorch installed, where this file stands; the tests read what it wrote:

    pip install torch==2.13.0 numpy
    python tests/data/make_lenet_torch.py

The keys of the file: `images` (batch, channel, height, width), `labels`, `output`, `loss`,
`param.NAME` and `grad.NAME`, where NAME is a key of the Net's `state_dict`; then, after one step of
SGD at 0.01, `stepped.output` and `stepped.loss` on the same images, and `stepped.NAME` for the
parameters of at most 1000 elements.
"""

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    """The slides' network for 32x32 images, one channel, ten classes."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(16 * 6 * 6, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x):
        """Logits of shape (batch, 10)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = functional.relu(self.fc1(x))
        x = functional.relu(self.fc2(x))
        return self.fc3(x)


def main() -> None:
    """Draw a Net, run it on two images, take a step, write everything beside this file."""
    torch.manual_seed(0)
    net = Net()
    images = torch.randn(2, 1, 32, 32)
    labels = torch.tensor([3, 7])
    output = net(images)
    loss = functional.cross_entropy(output, labels)
    loss.backward()
    arrays = {
        "images": images,
        "labels": labels.to(torch.int32),
        "output": output,
        "loss": loss,
        **{f"param.{name}": value.clone() for name, value in net.state_dict().items()},
        **{f"grad.{name}": value.grad for name, value in net.named_parameters()},
    }
    torch.optim.SGD(net.parameters(), lr=0.01).step()
    output = net(images)
    arrays |= {"stepped.output": output, "stepped.loss": functional.cross_entropy(output, labels)}
    arrays |= {
        f"stepped.{name}": value
        for name, value in net.state_dict().items()
        if value.numel() <= 1000  # the others would double the file
    }
    path = Path(__file__).with_name("lenet_torch.npz")
    np.savez_compressed(path, **{name: a.detach().numpy() for name, a in arrays.items()})
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
