"""Parameters and state on disk: one `.npz` file, each array under its path.

NumPy's format knows no bfloat16 and the like: such an array is written as unsigned integers of its
width, and the entry `dtypes` says in JSON what they are.
"""

import io
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import tree
from ..disk import write_whole
from ..types import Params, State, require
from .stored import differences, shapes_of

DTYPES, KEY = "dtypes", jax.dtypes.prng_key


def save_weights(path: str | Path, params: Params, state: State | None = None) -> None:
    """Write parameters and state to `path`, as `params/dense/w` and `state/batch_norm/mean`.

    The file appears whole or not at all.

    Args:
        path: Where to write.
        params: The parameters; or any tree of arrays, such as a whole `TrainState`, from which
            training goes on.
        state: The network's state, if it is not among them.

    Raises:
        ValueError: If `path` cannot be written, or two arrays have one path.
        TypeError: If there is anything but arrays of numbers, such as a random key.

    >>> import tempfile
    >>> save_weights(tempfile.gettempdir() + "/weights.npz", {"dense": {"w": np.ones(3)}})
    """
    leaves = tree.flatten({"params": params, "state": state or {}})
    for name, leaf in leaves.items():
        require(
            not (isinstance(leaf, jax.Array) and jax.numpy.issubdtype(leaf.dtype, KEY)),
            "save_weights",
            "arrays of numbers",
            f"a random key at {name}",
            "Keep its bits in the state instead, jax.random.key_data(key).",
            TypeError,
        )
    arrays = {name: np.asarray(leaf) for name, leaf in leaves.items()}
    for name, array in arrays.items():
        require(
            jax.numpy.issubdtype(array.dtype, np.number) or array.dtype == np.bool_,
            "save_weights",
            "arrays of numbers",
            f"{array.dtype} at {name}",
            "Keep what is no array of numbers in another place.",
            TypeError,
        )
    # 2 is a dtype that a package has added to those of NumPy, and that its format does not know.
    foreign = {name: x.dtype.name for name, x in arrays.items() if x.dtype.isbuiltin == 2}
    for name in foreign:
        arrays[name] = arrays[name].view(f"u{arrays[name].dtype.itemsize}")
    if foreign:
        arrays[DTYPES] = np.array(json.dumps(foreign))
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_whole("save_weights", path, content.getvalue())


def load_weights(path: str | Path, params: Params, state: State | None = None) -> tuple:
    """Parameters and state from `path`, in the structure of those given; all or nothing.

    Args:
        path: What `save_weights` wrote.
        params: The network's parameters, or their shapes, as `net.init` gives them; of a
            `TrainState`, what `step.init` gives.
        state: The same for the network's state.

    Returns:
        `(params, state)`, JAX's arrays; of a dtype that JAX computes in only with
        `jax_enable_x64`, such as float64, NumPy's.

    Raises:
        ValueError: If there is no such file, it is not readable as such, or an entry is missing,
            extra or of another shape or dtype; the message names all of them.

    >>> import tempfile
    >>> file = tempfile.gettempdir() + "/weights.npz"
    >>> save_weights(file, {"dense": {"w": np.ones(3)}})
    >>> params, state = load_weights(file, {"dense": {"w": np.zeros(3)}})
    >>> params["dense"]["w"].tolist(), state
    ([1.0, 1.0, 1.0], {})
    """
    wanted = {"params": params, "state": state or {}}
    try:
        with np.load(io.BytesIO(Path(path).read_bytes()), allow_pickle=False) as archive:
            # By the names in the archive: `a.npy` may be the entry of `a`, or an array's own name.
            arrays = {name: archive[f"{name}.npy"] for name in archive.files}
        for name, dtype in json.loads(str(arrays.pop(DTYPES, "{}"))).items():
            arrays[name] = arrays[name].view(dtype)
    except OSError as error:
        remedy = "Check the path."
        require(False, "load_weights", f"a file at {path}", error.strerror, remedy)
        raise
    except Exception as error:
        raise ValueError(
            f"load_weights: expected a file that save_weights wrote, got {path}, which does not "
            f"read as one ({error}). Save the parameters again."
        ) from None
    expected = {name: _typed(leaf) for name, leaf in tree.flatten(wanted).items()}
    faults = differences(shapes_of(arrays), shapes_of(expected))
    require(
        not faults,
        "load_weights",
        f"the arrays of this network in {path}",
        "; ".join(faults),
        "The file belongs to another network.",
    )
    leaves = [_exact(arrays[name]) for name in expected]
    restored = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return restored["params"], restored["state"]


def _typed(leaf: Any) -> Any:
    """A leaf that has a shape and a dtype."""
    return leaf if hasattr(leaf, "shape") and hasattr(leaf, "dtype") else np.asarray(leaf)


def _exact(array: np.ndarray) -> Any:
    """The array in JAX, or as it is where JAX would give it a narrower dtype."""
    fits = jax.dtypes.canonicalize_dtype(array.dtype) == array.dtype
    return jax.numpy.asarray(array) if fits else array
