"""Files of tensors in the safetensors format, both ways."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..types import require


def save_safetensors(path: str | Path, tensors: Mapping[str, Any]) -> None:
    """Write arrays by name to one file.

    Args:
        path: The file; it appears whole or not at all.
        tensors: Arrays by name, such as those of `to_state_dict`, or `tree.flatten(params)`.

    Raises:
        ModuleNotFoundError: Without the package safetensors.

    >>> import tempfile
    >>> path = tempfile.gettempdir() + "/weights.safetensors"
    >>> save_safetensors(path, {"w": np.ones(2)})
    >>> load_safetensors(path)["w"].tolist()
    [1.0, 1.0]
    """
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    content = _library().numpy.save(arrays)
    target = Path(path)
    partial = target.with_name(f".{target.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def load_safetensors(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of a file by name, in the file's dtypes.

    Raises:
        ValueError: If the file is not one of this format, or cut short.
        OSError: If it cannot be read.
        ModuleNotFoundError: Without the package safetensors.

    See `save_safetensors` for an example.

    >>> load_safetensors("missing.safetensors")
    Traceback (most recent call last):
        ...
    FileNotFoundError: [Errno 2] No such file or directory: 'missing.safetensors'
    """
    library, content = _library(), Path(path).read_bytes()
    try:
        return {name: _array(tensor) for name, tensor in library.deserialize(content)}
    except Exception as error:  # the library's own error type has changed between versions
        raise ValueError(
            f"load_safetensors: expected a file of tensors in the safetensors format, got {path}, "
            f"which does not read as one ({error}). Save or download it again."
        ) from None


_DTYPES = {
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
    **{f"I{bits}": f"int{bits}" for bits in (8, 16, 32, 64)},
    **{f"U{bits}": f"uint{bits}" for bits in (8, 16, 32, 64)},
}


def _array(tensor: Mapping[str, Any]) -> np.ndarray:
    """One tensor of a file; `jnp.dtype` knows the names that NumPy lacks."""
    dtype = jnp.dtype(_DTYPES[tensor["dtype"]])
    return np.frombuffer(tensor["data"], dtype).reshape(tensor["shape"]).copy()


def _library() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError as error:
        require(
            error.name is None or not error.name.startswith("safetensors"),
            "safetensors",
            "the package safetensors",
            "an installation without it",
            "Run pip install 'funcnet[interop]'.",
            ModuleNotFoundError,
        )
        raise
    return safetensors
