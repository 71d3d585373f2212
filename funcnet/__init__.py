"""funcnet: functional neural networks on JAX, with backpropagation written by hand.

Networks are pure functions over nested dicts of arrays; every op carries a backward pass written
by hand and proved against JAX's own. `import funcnet as fn` gives the names below; optimisers are
optax's.
"""

from . import data as data
from . import io as io
from . import nets as nets
from . import plot as plot
from . import tree as tree
from .figures import Mean as Mean
from .layers import initializers as initializers
from .layers.attention import Attention as Attention
from .layers.conv import AdaptivePool as AdaptivePool
from .layers.conv import AvgPool as AvgPool
from .layers.conv import Conv as Conv
from .layers.conv import ConvTranspose as ConvTranspose
from .layers.conv import Flatten as Flatten
from .layers.conv import GlobalPool as GlobalPool
from .layers.conv import MaxPool as MaxPool
from .layers.dropout import Dropout as Dropout
from .layers.dropout import DropPath as DropPath
from .layers.glue import Bias as Bias
from .layers.glue import Einsum as Einsum
from .layers.glue import Identity as Identity
from .layers.glue import PReLU as PReLU
from .layers.glue import Reshape as Reshape
from .layers.glue import Scale as Scale
from .layers.linear import Dense as Dense
from .layers.linear import Embed as Embed
from .layers.norm import BatchNorm as BatchNorm
from .layers.norm import GroupNorm as GroupNorm
from .layers.norm import InstanceNorm as InstanceNorm
from .layers.norm import LayerNorm as LayerNorm
from .layers.norm import RMSNorm as RMSNorm
from .layers.position import LearnedPositions as LearnedPositions
from .layers.position import SinusoidalPositions as SinusoidalPositions
from .layers.position import TimeEmbedding as TimeEmbedding
from .layers.recurrent import GRU as GRU
from .layers.recurrent import LSTM as LSTM
from .layers.recurrent import RNN as RNN
from .layers.recurrent import Bidirectional as Bidirectional
from .layers.resize import Pad as Pad
from .layers.resize import PixelShuffle as PixelShuffle
from .layers.resize import Resize as Resize
from .layers.transformer import FeedForward as FeedForward
from .layers.transformer import TransformerBlock as TransformerBlock
from .nn.combine import network as network
from .nn.combine import parallel as parallel
from .nn.combine import serial as serial
from .nn.layer import Layer as Layer
from .nn.layer import pure as pure
from .nn.layer import stateless as stateless
from .nn.tie import tie as tie
from .nn.wrap import ensemble as ensemble
from .nn.wrap import remat as remat
from .nn.wrap import repeat as repeat
from .nn.wrap import residual as residual
from .ops.activations.dropout import dropout as dropout
from .ops.activations.rectifiers import celu as celu
from .ops.activations.rectifiers import elu as elu
from .ops.activations.rectifiers import hard_sigmoid as hard_sigmoid
from .ops.activations.rectifiers import hard_swish as hard_swish
from .ops.activations.rectifiers import hard_tanh as hard_tanh
from .ops.activations.rectifiers import leaky_relu as leaky_relu
from .ops.activations.rectifiers import prelu as prelu
from .ops.activations.rectifiers import relu as relu
from .ops.activations.rectifiers import relu6 as relu6
from .ops.activations.rectifiers import relu_squared as relu_squared
from .ops.activations.rectifiers import selu as selu
from .ops.activations.shrinking import hard_shrink as hard_shrink
from .ops.activations.shrinking import soft_shrink as soft_shrink
from .ops.activations.shrinking import threshold as threshold
from .ops.activations.smooth import gelu as gelu
from .ops.activations.smooth import gelu_tanh as gelu_tanh
from .ops.activations.smooth import glu as glu
from .ops.activations.smooth import log_sigmoid as log_sigmoid
from .ops.activations.smooth import mish as mish
from .ops.activations.smooth import sigmoid as sigmoid
from .ops.activations.smooth import silu as silu
from .ops.activations.smooth import softplus as softplus
from .ops.activations.smooth import softsign as softsign
from .ops.activations.smooth import tanh as tanh
from .ops.activations.softmax import log_softmax as log_softmax
from .ops.activations.softmax import logsumexp as logsumexp
from .ops.activations.softmax import softmax as softmax
from .ops.backprop import activations as activations
from .ops.backprop import backprop_loss as backprop_loss
from .ops.backprop import deltas as deltas
from .ops.images.adaptive_pool import adaptive_avg_pool as adaptive_avg_pool
from .ops.images.adaptive_pool import adaptive_max_pool as adaptive_max_pool
from .ops.images.conv import conv as conv
from .ops.images.conv_transpose import conv_transpose as conv_transpose
from .ops.images.pad import pad as pad
from .ops.images.pool import avg_pool as avg_pool
from .ops.images.pool import global_avg_pool as global_avg_pool
from .ops.images.pool import global_max_pool as global_max_pool
from .ops.images.pool import max_pool as max_pool
from .ops.images.resize import pixel_shuffle as pixel_shuffle
from .ops.images.resize import pixel_unshuffle as pixel_unshuffle
from .ops.images.resize import resize as resize
from .ops.losses.cross_entropy import cross_entropy as cross_entropy
from .ops.losses.ctc import ctc_loss as ctc_loss
from .ops.losses.distances import absolute_error as absolute_error
from .ops.losses.distances import binary_cross_entropy as binary_cross_entropy
from .ops.losses.distances import huber as huber
from .ops.losses.distances import sigmoid_focal as sigmoid_focal
from .ops.losses.distances import smooth_l1 as smooth_l1
from .ops.losses.distances import squared_error as squared_error
from .ops.losses.divergence import gaussian_kl as gaussian_kl
from .ops.losses.divergence import kl_divergence as kl_divergence
from .ops.losses.divergence import soft_dice as soft_dice
from .ops.losses.likelihood import bernoulli_nll as bernoulli_nll
from .ops.losses.likelihood import gaussian_nll as gaussian_nll
from .ops.losses.likelihood import nll as nll
from .ops.losses.likelihood import poisson_nll as poisson_nll
from .ops.losses.linear_cross_entropy import linear_cross_entropy as linear_cross_entropy
from .ops.losses.margins import hinge as hinge
from .ops.losses.margins import margin_ranking as margin_ranking
from .ops.losses.margins import triplet_margin as triplet_margin
from .ops.norms.batch_norm import batch_norm as batch_norm
from .ops.norms.batch_norm import normalize as normalize
from .ops.norms.group_norm import group_norm as group_norm
from .ops.norms.group_norm import instance_norm as instance_norm
from .ops.norms.layer_norm import layer_norm as layer_norm
from .ops.norms.layer_norm import rms_norm as rms_norm
from .ops.norms.lengths import l2_normalize as l2_normalize
from .ops.norms.lengths import standardize as standardize
from .ops.products.einsum import einsum as einsum
from .ops.products.gated import geglu as geglu
from .ops.products.gated import swiglu as swiglu
from .ops.products.linear import dense as dense
from .ops.products.linear import embed as embed
from .ops.sequences.attention import attention as attention
from .ops.sequences.attention_weights import attention_weights as attention_weights
from .ops.sequences.elman import elman as elman
from .ops.sequences.gru import gru as gru
from .ops.sequences.lstm import lstm as lstm
from .ops.sequences.rotary import rotary as rotary
from .rules.prove import prove as prove
from .rules.prove import prove_all as prove_all
from .rules.rule import RULES as RULES
from .rules.rule import Case as Case
from .rules.rule import Rule as Rule
from .rules.rule import autodiff as autodiff
from .rules.rule import normal_case as normal_case
from .rules.rule import rule as rule
from .traces.trace import Trace as Trace
from .traces.trace import trace as trace
from .traces.watch.capture import capture as capture
from .traces.watch.capture import edit_gradient as edit_gradient
from .traces.watch.watch import watch as watch
from .train.edits import character_error_rate as character_error_rate
from .train.edits import edit_distance as edit_distance
from .train.fit import Fitted as Fitted
from .train.fit import evaluate as evaluate
from .train.fit import fit as fit
from .train.history import History as History
from .train.history import confusion as confusion
from .train.metrics import accuracy as accuracy
from .train.metrics import r_squared as r_squared
from .train.optimizers import average_of as average_of
from .train.optimizers import averaged as averaged
from .train.step import Step as Step
from .train.step import TrainState as TrainState
from .train.step import make_step as make_step

__version__ = "0.1.0"


def __dir__() -> list[str]:
    """The names that are documented: modules count where they are a namespace."""
    namespaces = {"data", "initializers", "io", "nets", "plot", "tree"}
    modules = {name for name, value in globals().items() if isinstance(value, type(data))}
    hidden = modules - namespaces
    return [name for name in globals() if name[0] != "_" and name not in hidden]
