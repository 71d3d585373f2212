"""From where on a figure is a disease, and why."""

from typing import NamedTuple

import numpy as np

from ...render.forms import Column, Table


class Limit(NamedTuple):
    """A limit that a figure is held against.

    Attributes:
        name: What is held against it.
        value: The limit.
        reason: Why it stands there.
        source: Where the reason is from.
    """

    name: str
    value: float
    reason: str
    source: str


DRIFT = Limit(
    "scale along the layers",
    1e3,
    "a network whose gradients came to 1/17,000 along its layers did not learn; "
    "layer by layer the variance is to stay",
    "He et al. 2015, section 2.2; Glorot & Bengio 2010, equations 8 and 9",
)
STEPS = Limit(
    "scale along the steps of a loop",
    1 / float(np.finfo(np.float32).eps),
    "the gradient of shared weights is a sum over the steps: so much smaller a term is lost",
    "Bengio et al. 1994, section IV; float32's spacing, 2^-23",
)
LAYERS = Limit("layers in such a row", 5, "a drift is one that several layers share", "convention")
SHARE = Limit(
    "largest share of one layer in it",
    0.5,
    "a layer that is scaled alone, such as a head, is no drift (of the logarithms)",
    "convention",
)
SILENT = Limit(
    "units that never fire",
    1 / 3,
    "a tenth is usual with rectifiers; 40% was seen with a learning rate that is too high",
    "Karpathy, CS231n, notes on ReLU; Lu et al. 2019",
)
LOOKS = Limit(
    "examples a unit is looked at",
    128,
    "a unit that fires for one example in 40 is then missed with a chance of 4%",
    "0.975^128",
)
TINY = Limit(
    "size of an adjoint in float16",
    float(np.finfo(np.float16).tiny),
    "below the least normal number digits are lost one by one, below 3e-8 all",
    "Micikevicius et al. 2018, section 3.2",
)
LARGE = Limit(
    "update over weights, too large",
    0.2,
    "1e-3 is usual, the first step of Adam may come to 1e-1; with 1 a step replaces them",
    "Karpathy, CS231n, ratio of updates to weights; You et al. 2020, section 3",
)
SMALL = Limit(
    "update over weights, too small",
    1e-6,
    "a thousandth of the usual 1e-3: a million steps to get anywhere",
    "Karpathy, CS231n, ratio of updates to weights",
)
LOST = Limit(
    "updates rounded away",
    0.5,
    "a weight stays as it is if the update is below half of its spacing",
    "Micikevicius et al. 2018, section 3.1",
)
RIGHT = Limit(
    "training examples right, for over-fitting",
    0.98,
    "nothing is left to be learned from them",
    "Zhang et al. 2017",
)
GAP = Limit(
    "gap to the held-out examples",
    0.1,
    "a tenth of the examples was learned by heart",
    "convention: 100% against 80% in the lecture",
)
RISE = Limit(
    "held-out loss over its least",
    1.3,
    "it rises while that of training falls: the moment to stop has passed",
    "Prechelt 1998, generalisation loss",
)
JUMP = Limit(
    "rise of the loss in an epoch, of the first loss",
    0.05,
    "an epoch averages over all batches; what rises then is no noise",
    "Bottou et al. 2018, section 4.2: a fixed step ends in a ball that grows with it",
)
STUCK = Limit(
    "fall of the loss in all epochs",
    0.02,
    "nothing was learned",
    "convention",
)
NOISE = Limit(
    "noise of a batch's gradient over the gradient",
    100.0,
    "the squared norm of the noise: at 100 a step goes ten times further at random than ahead",
    "McCandlish et al. 2018, equation 2.8",
)

LIMITS = (
    DRIFT, STEPS, LAYERS, SHARE, SILENT, LOOKS, TINY, LARGE, SMALL, LOST, NOISE, RIGHT, GAP, RISE,
    JUMP, STUCK,
)  # fmt: skip


def table() -> Table:
    """The limits, their reasons and their sources.

    >>> len(table().rows) == len(LIMITS)
    True
    """
    columns = (Column("figure"), Column("limit", right=True), Column("reason"), Column("source"))
    rows = tuple((x.name, f"{x.value:.3g}", x.reason, x.source) for x in LIMITS)
    return Table(columns, rows)
