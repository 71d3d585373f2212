"""funcnet: functional neural networks on JAX, with backpropagation written by hand.

Networks are pure functions over nested dicts of arrays; every op carries a backward pass written
by hand and proved against JAX's own. `import funcnet as fn` gives the names below; optimisers are
optax's.
"""

from .check import prove as prove
from .check import report as report
from .combine import ensemble as ensemble
from .combine import network as network
from .combine import parallel as parallel
from .combine import remat as remat
from .combine import repeat as repeat
from .combine import residual as residual
from .combine import serial as serial
from .layer import Layer as Layer
from .layer import pure as pure
from .layer import stateless as stateless
from .layers import initializers as initializers
from .layers.conv import AvgPool as AvgPool
from .layers.conv import Conv as Conv
from .layers.conv import Flatten as Flatten
from .layers.conv import GlobalPool as GlobalPool
from .layers.conv import MaxPool as MaxPool
from .layers.dropout import Dropout as Dropout
from .layers.linear import Dense as Dense
from .layers.linear import Embed as Embed
from .layers.norm import BatchNorm as BatchNorm
from .nets.convnet import LeNet as LeNet
from .nets.mlp import MLP as MLP
from .ops.linear import dense as dense
from .ops.linear import embed as embed
from .rules import RULES as RULES
from .rules import Case as Case
from .rules import Rule as Rule
from .rules import autodiff as autodiff
from .rules import normal as normal
from .rules import rule as rule
