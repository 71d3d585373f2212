"""Parameters and state on disk: one `.npz` file, each array under its path."""

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np

from ..types import Params, State, require
from .history import write_whole


def flat_paths(tree: Any) -> dict[str, Any]:
    """The arrays of a nested dict by path.

    >>> flat_paths({"dense": {"w": 1, "b": 2}})
    {'dense/b': 2, 'dense/w': 1}
    """
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {"/".join(str(entry.key) for entry in path): leaf for path, leaf in leaves}


def save_weights(path: str | Path, params: Params, state: State | None = None) -> None:
    """Write parameters and state to `path`, as `params/dense/w` and `state/batch_norm/mean`.

    The file appears whole or not at all.

    >>> import tempfile
    >>> save_weights(tempfile.gettempdir() + "/weights.npz", {"dense": {"w": np.ones(3)}})
    """
    leaves = flat_paths({"params": params, "state": state or {}})
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{name: np.asarray(x) for name, x in leaves.items()})
    write_whole("save_weights", path, content.getvalue())


def load_weights(path: str | Path, params: Params, state: State | None = None) -> tuple:
    """Parameters and state from `path`, in the structure of those given; all or nothing.

    Args:
        path: What `save_weights` wrote.
        params: The network's parameters, or their shapes, as `net.init` gives them.
        state: The same for its state.

    Returns:
        `(params, state)`.

    Raises:
        ValueError: If the file is not readable as such, or an entry is missing, extra or of
            another shape; the message names all of them.

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
            arrays = {name: archive[name] for name in archive.files}
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"load_weights: expected a file that save_weights wrote, got {path}, which does not "
            f"read as one ({error}). Save the parameters again."
        ) from None
    expected = flat_paths(wanted)
    faults = [f"{name} is missing" for name in sorted(expected.keys() - arrays.keys())]
    faults += [f"{name} is extra" for name in sorted(arrays.keys() - expected.keys())]
    faults += [
        f"{name} has shape {arrays[name].shape}, not {tuple(leaf.shape)}"
        for name, leaf in expected.items()
        if name in arrays and arrays[name].shape != tuple(leaf.shape)
    ]
    require(
        not faults,
        "load_weights",
        f"the arrays of this network in {path}",
        "; ".join(faults),
        "The file belongs to another network.",
    )
    leaves = [jax.numpy.asarray(arrays[name]) for name in expected]
    restored = jax.tree.unflatten(jax.tree.structure(wanted), leaves)
    return restored["params"], restored["state"]
