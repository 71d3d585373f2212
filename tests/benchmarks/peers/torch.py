"""PyTorch: eager, or by `torch.compile`."""

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # its usual name

from ..models import (
    CHARACTERS,
    DECAY,
    DEPTH,
    EMBED,
    EPS,
    HEADS,
    LENGTH,
    MOMENTUM,
    RATES,
    UNITS,
    VOCABULARY,
    WIDTH,
    Built,
    Task,
    blocks,
)


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    )


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(576, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


class Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.stride = after // before
        self.conv1 = nn.Conv2d(before, after, 3, self.stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after, EPS)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after, EPS)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if self.stride > 1:
            filled = x.shape[1] // 2
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, filled, filled))
        return F.relu(x + y, inplace=True)


def resnet20() -> nn.Module:
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16, EPS), nn.ReLU(inplace=True)]
    stages = [Block(before, after) for _, before, after in blocks()]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(CHARACTERS, EMBED)
        self.lstm = nn.LSTM(EMBED, UNITS, batch_first=True)
        self.head = nn.Linear(UNITS, CHARACTERS)
        # The cell has two biases that are added; one of them stays at zero.
        nn.init.zeros_(self.lstm.bias_hh_l0).requires_grad_(False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.lstm(self.embed(tokens))[0])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(WIDTH, EPS)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.norm2 = nn.LayerNorm(WIDTH, EPS)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = self.qkv(self.norm1(x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(*parts, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Transformer() for _ in range(DEPTH)))
        self.norm = nn.LayerNorm(WIDTH, EPS)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.tokens(ids) + self.positions.weight[: ids.shape[1]]
        return F.linear(self.norm(self.blocks(x)), self.tokens.weight)


NETWORKS = {"mlp": mlp, "lenet": lenet, "resnet20": resnet20, "lstm": LSTM, "gpt": GPT}


def theirs(task: Task, name: str, value: np.ndarray) -> np.ndarray:
    """A weight as (outputs, inputs), a kernel as (outputs, inputs, height, width)."""
    if value.ndim == 4:
        return value.transpose(3, 2, 0, 1)
    if (task.model, name) == ("lenet", "dense/w"):  # the pixels of a channel stand together
        value = value.reshape(6, 6, 16, -1).transpose(2, 0, 1, 3).reshape(value.shape)
    return value.T if value.ndim == 2 and not name.endswith("table") else value


def ours(task: Task, name: str, value: np.ndarray) -> np.ndarray:
    """The other way round."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    value = value.T if value.ndim == 2 and not name.endswith("table") else value
    if (task.model, name) == ("lenet", "dense/w"):
        value = value.reshape(16, 6, 6, -1).transpose(1, 2, 0, 3).reshape(value.shape)
    return value


def optimizer(model: str, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    rate = RATES[model]
    if model in ("lenet", "resnet20"):
        momentum = MOMENTUM if model == "resnet20" else 0.0
        return torch.optim.SGD(params, rate, momentum, fused=True)
    if model == "gpt":
        return torch.optim.AdamW(params, rate, weight_decay=DECAY, fused=True)
    return torch.optim.Adam(params, rate, fused=True)


def build(task: Task, compiled: bool = False) -> Built:
    """The step; pictures and kernels have the channels last, which is the faster form."""
    net = NETWORKS[task.model]().train()
    params = [p for p in net.parameters() if p.requires_grad]
    x, labels = torch.from_numpy(task.batch[0]), torch.from_numpy(task.batch[1]).long()
    with torch.no_grad():
        for param, (name, value) in zip(params, task.weights.items(), strict=True):
            param.copy_(torch.from_numpy(theirs(task, name, value).copy()))
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        net = net.to(memory_format=torch.channels_last)

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=task.dtype == "bfloat16"):
            logits = net(x)
        return F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten())

    measured: Callable = torch.compile(loss) if compiled else loss
    transform = optimizer(task.model, params)

    def gradients() -> dict[str, np.ndarray]:
        transform.zero_grad(set_to_none=True)
        measured().backward()
        named = zip(task.weights, params, strict=True)
        return {name: ours(task, name, p.grad.numpy()) for name, p in named}

    def run(count: int) -> float:
        value = None
        for _ in range(count):
            transform.zero_grad(set_to_none=True)
            value = measured()
            value.backward()
            transform.step()
        return value.item()

    return Built(sum(p.numel() for p in params), gradients, run)
