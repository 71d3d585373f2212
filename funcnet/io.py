"""Weights to files and from them, PyTorch's too: `fn.io`."""

from .interop.safetensors import load_safetensors as load_safetensors
from .interop.safetensors import save_safetensors as save_safetensors
from .interop.torch import from_state_dict as from_state_dict
from .interop.torch import to_state_dict as to_state_dict
from .nets.families import bert as bert
from .nets.families import gpt2 as gpt2
from .nets.families import llama as llama
from .nets.families import load_pretrained as load_pretrained
from .nets.families import resnet as resnet
from .nets.families import vit as vit
from .nets.family import Family as Family
from .train.weights import load_weights as load_weights
from .train.weights import save_weights as save_weights
