"""A family of published models: its network, and where its files have the arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from ..interop.torch import read_state_dict, to_state_dict
from ..nn.layer import Layer
from ..types import Params, State, require, shown


@dataclass(frozen=True)
class Family:
    """A network and where the files of its family have its arrays.

    Attributes:
        name: The family's.
        net: The network.
        inputs: The shapes of an example of its inputs.
        names: As `from_state_dict` takes them.
        prefix: What names begin with where the file has more than the bare model.
        transposed: As `from_state_dict` takes it.
        ignore: Shell patterns of what files hold besides.
    """

    name: str
    net: Layer
    inputs: tuple
    names: Mapping[str, str]
    prefix: str = ""
    transposed: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()

    def read(self, tensors: Mapping[str, Any]) -> tuple[Params, State]:
        """Parameters and state from the arrays of a file, all or nothing.

        Args:
            tensors: Arrays by name, such as `load_safetensors` gives, or a `state_dict()`; with the
                prefix of the family or, all of them, without.

        Raises:
            ValueError: If an array is missing, extra or of another shape; all are listed.
        """
        given = {_current(name): tensor for name, tensor in tensors.items()}
        whole = any(name.startswith(self.prefix) for name in given)
        cut = "" if whole else self.prefix
        read = read_state_dict(
            self.net,
            given,
            self.inputs,
            {path: name.removeprefix(cut) for path, name in self.names.items()},
            [name for name in given if any(fnmatchcase(name, p) for p in self.ignore)],
            [name.removeprefix(cut) for name in self.transposed],
        )
        require(
            not read.faults,
            self.name,
            "the arrays of this model",
            "; ".join(read.faults),
            "The configuration has to be the one that came with the file.",
        )
        return read.params, read.state

    def write(self, params: Params, state: State) -> dict[str, np.ndarray]:
        """The arrays of a file, the inverse of `read`; a tied head is not written.

        Raises:
            ValueError: If an array is missing.
        """
        return to_state_dict(
            self.net, params, state, *self.inputs, names=self.names, transposed=self.transposed
        )


def _current(name: str) -> str:
    """The name that an array has now; the first files of BERT have the letters of the paper."""
    for old, new in (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")):
        name = name.removesuffix(old) + new if name.endswith(old) else name
    return name


REQUIRED = object()

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}


@dataclass(frozen=True)
class Settings:
    """A configuration, read with one clear sentence for what does not fit.

    Attributes:
        name: The family that reads it.
        config: What `config.json` holds.
    """

    name: str
    config: Mapping[str, Any]

    def __call__(self, key: str, otherwise: Any = REQUIRED) -> Any:
        """The value of a key.

        Raises:
            ValueError: If it is not there, and nothing stands for it otherwise.

        >>> Settings("gpt2", {"n_embd": 8})("n_embd")
        8
        """
        require(
            key in self.config or otherwise is not REQUIRED,
            self.name,
            f"a configuration with {key}",
            f"one with {', '.join(sorted(self.config)) or 'nothing'}",
            "Take the whole of config.json.",
        )
        return self.config.get(key, otherwise)

    def only(self, values: Mapping[str, Any]) -> None:
        """Refuse a configuration that has other values, where it has any.

        Raises:
            ValueError: If one differs.

        >>> Settings("gpt2", {}).only({"scale_attn_weights": True})
        """
        for key, value in values.items():
            require(
                self.config.get(key) in (None, value),
                self.name,
                f"a model with {key} {value!r}",
                shown(self.config.get(key)),
                "The network has no other kind.",
            )

    def activation(self, key: str, otherwise: str) -> str:
        """The name that an activation has here.

        Raises:
            ValueError: If there is none.

        >>> Settings("gpt2", {}).activation("activation_function", "gelu_new")
        'gelu_tanh'
        """
        theirs = self(key, otherwise)
        require(
            theirs in ACTIVATIONS,
            self.name,
            f"{key} among {', '.join(ACTIVATIONS)}",
            shown(theirs),
            "Make the network yourself, with a function for its activation.",
        )
        return ACTIVATIONS[theirs]
