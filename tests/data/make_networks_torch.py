"""Writes networks_torch.npz: outputs and gradients of PyTorch's networks.

Run by hand, with PyTorch installed, where this file stands; the tests read what it wrote:

    pip install torch==2.13.0 numpy
    python tests/data/make_networks_torch.py

Parameters are not stored: `drawn` makes each from its name, here and in the tests. Each network has
`NAME/evaluated`, its output in use; `NAME/output`, that in training; `NAME/entry/KEY`, what became
of a running statistic; and `NAME/grad/KEY`, the gradient of the output weighted by `ripple`, at the
places that `places` picks.
"""

import math
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

PICKED = 200


def drawn(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """An array that its name decides: norms near 1, variances positive, weights by fan-in."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if name.endswith("running_var"):
        return 1 + normal**2
    if len(shape) < 2:
        is_norm = name.endswith("weight")
        return 1 + 0.1 * normal if is_norm else 0.1 * normal
    fan_in = math.prod(shape[1:])
    return normal / math.sqrt(fan_in)


def places(name: str, size: int) -> np.ndarray:
    """Which elements of a gradient are kept: all of a small one, some of a large one."""
    if size <= PICKED:
        return np.arange(size)
    return np.random.default_rng(zlib.crc32(name.encode())).choice(size, PICKED, replace=False)


def ripple(shape: tuple[int, ...]) -> np.ndarray:
    """What an output is weighted with to make a scalar of it."""
    return np.cos(np.arange(math.prod(shape))).reshape(shape)


def networks() -> dict[str, tuple]:
    """For each name: the module, its inputs, and a function that runs it."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        """A basic block of a residual network, with torchvision's names."""

        def __init__(self, inputs: int, width: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            if stride > 1:
                conv = nn.Conv2d(inputs, width, 1, stride, bias=False)
                self.downsample = nn.Sequential(conv, nn.BatchNorm2d(width))

        def forward(self, x):
            """relu(x + f(x))."""
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            return functional.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))

    class ResNet18(nn.Module):
        """The residual network of 18 layers, with torchvision's names."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.maxpool = nn.MaxPool2d(3, 2, 1)
            inputs = 64
            for i, width in enumerate((64, 128, 256, 512)):
                blocks = [Block(inputs, width, 2 if i else 1), Block(width, width, 1)]
                setattr(self, f"layer{i + 1}", nn.Sequential(*blocks))
                inputs = width
            self.fc = nn.Linear(512, 10)

        def forward(self, x):
            """Logits (batch, 10)."""
            x = self.maxpool(functional.relu(self.bn1(self.conv1(x))))
            x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
            return self.fc(x.mean((2, 3)))

    def block(norm_first: bool):
        return nn.TransformerEncoderLayer(
            16, 4, 32, 0.0, "gelu", batch_first=True, norm_first=norm_first, bias=True
        )

    class GPT(nn.Module):
        """A decoder-only language model with a tied head, out of PyTorch's own layers."""

        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(23, 16), nn.Embedding(8, 16)
            self.h = nn.ModuleList([block(True) for _ in range(2)])
            self.ln_f = nn.LayerNorm(16)
            self.lm_head = nn.Linear(16, 23, bias=False)
            self.lm_head.weight = self.wte.weight

        def forward(self, ids):
            """Logits (batch, time, 23)."""
            x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
            mask = nn.Transformer.generate_square_subsequent_mask(ids.shape[1], dtype=x.dtype)
            for layer in self.h:
                x = layer(x, mask)
            return self.lm_head(self.ln_f(x))

    def recurrent(kind: type, **options: int):
        return kind(5, 6, num_layers=2, bidirectional=True, batch_first=True, **options)

    image = torch.from_numpy(drawn("image", (4, 3, 48, 48)))
    sequence = torch.from_numpy(drawn("sequence", (2, 7, 16)))
    steps = torch.from_numpy(drawn("steps", (3, 7, 5)))
    ids = torch.tensor([[1, 22, 3, 0, 7], [5, 5, 6, 2, 19]])
    return {
        "resnet18": (ResNet18(), image, lambda net, x: net(x)),
        "block": (block(True), sequence, lambda net, x: net(x)),
        "block_norm_last": (block(False), sequence, lambda net, x: net(x)),
        "gpt": (GPT(), ids, lambda net, x: net(x)),
        "lstm": (recurrent(nn.LSTM), steps, lambda net, x: net(x)[0]),
        "lstm_projected": (recurrent(nn.LSTM, proj_size=4), steps, lambda net, x: net(x)[0]),
        "gru": (recurrent(nn.GRU), steps, lambda net, x: net(x)[0]),
        "rnn": (recurrent(nn.RNN), steps, lambda net, x: net(x)[0]),
    }


def record(name: str, module, x, run: Callable) -> dict[str, np.ndarray]:
    """One network's arrays, computed in float64."""
    import torch

    module = module.double()
    filled = {
        key: torch.from_numpy(drawn(f"{name}/{key}", tuple(value.shape)))
        if value.is_floating_point()
        else value
        for key, value in module.state_dict().items()
    }
    if name == "gpt":
        filled["lm_head.weight"] = filled["wte.weight"]
    module.load_state_dict(filled)
    evaluated = run(module.eval(), x).detach().numpy()
    output = run(module.train(), x)
    (output * torch.from_numpy(ripple(tuple(output.shape)))).sum().backward()
    arrays = {f"{name}/output": output.detach().numpy(), f"{name}/evaluated": evaluated}
    for key, value in module.named_parameters():
        flat = value.grad.numpy().ravel()
        arrays[f"{name}/grad/{key}"] = flat[places(key, flat.size)]
    for key, value in module.named_buffers():
        if value.is_floating_point():
            arrays[f"{name}/entry/{key}"] = value.numpy()
    return arrays


def main() -> None:
    """Write everything beside this file."""
    arrays: dict[str, np.ndarray] = {}
    for name, parts in networks().items():
        arrays |= record(name, *parts)
    path = Path(__file__).with_name("networks_torch.npz")
    np.savez_compressed(path, **arrays)
    print(f"{path}: {path.stat().st_size} bytes")


if __name__ == "__main__":
    main()
