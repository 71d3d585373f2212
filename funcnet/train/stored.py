"""One checkpoint on disk: a folder of arrays, and a record of them that says what they must be.

The record is written last and names each file with its checksum: without it a checkpoint is none,
and one whose files are not those of its record is not read. A record written again, with other
arrays, takes the place of the first at once.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from .. import tree
from ..disk import write_whole
from ..types import optional
from .state import is_key

RECORD, ARRAYS, STEP = "record.json", "arrays-", "step_"
FORMAT = 1

Shapes = dict[str, tuple[tuple[int, ...], str]]
"""Shape and dtype of each array, by path."""


def orbax() -> Any:
    """The library that writes the arrays.

    Raises:
        ImportError: If it is missing.
    """
    return optional("Checkpoints", "orbax.checkpoint", "orbax-checkpoint", "checkpoint")


def folder_of(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step is."""
    return folder / f"{STEP}{step}"


def steps_in(folder: Path, half_written: bool = False) -> list[int]:
    """The steps of which there is a record, the last one first; or those half written as well."""
    names = (
        place.name.removeprefix(STEP)
        for place in folder.glob(f"{STEP}*")
        if half_written or (place / RECORD).is_file()
    )
    return sorted((int(name) for name in names if name.isdigit()), reverse=True)


def flat(under: str, part: Any) -> dict[str, Any]:
    """The leaves by path, below a first name."""
    return {f"{under}/{name}".rstrip("/"): leaf for name, leaf in tree.flatten(part).items()}


def shapes_of(arrays: Mapping[str, Any]) -> Shapes:
    """Shape and dtype of each."""
    return {name: (tuple(np.shape(x)), _dtype(x)) for name, x in arrays.items()}


def _dtype(leaf: Any) -> str:
    return str(leaf.dtype) if hasattr(leaf, "dtype") else str(np.asarray(leaf).dtype)


def differences(found: Shapes, wanted: Shapes) -> list[str]:
    """What of it is missing, extra, or of another shape or dtype.

    >>> differences({"w": ((2,), "float32"), "a": ((), "int32")}, {"w": ((3,), "float32")})
    ['a is extra', 'w has shape (2,), not (3,)']
    """
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} is extra" for name in sorted(found.keys() - wanted.keys())]
    both = [name for name in wanted if name in found]
    for i, what in enumerate(("shape", "dtype")):
        faults += [
            f"{name} has {what} {found[name][i]}, not {wanted[name][i]}"
            for name in both
            if found[name][i] != wanted[name][i]
        ]
    return faults


class Writing:
    """The writing of one checkpoint: `finish` waits for the arrays and then writes the record.

    With several processes all of them begin and finish; the first one writes the record.
    """

    def __init__(self, writer: Any, place: Path, arrays: Mapping[str, Any]) -> None:
        self.writer, self.place = writer, place
        self.shapes = shapes_of(arrays)
        self.name = ARRAYS + (secrets.token_hex(4) if jax.process_count() == 1 else _common())
        filled = {name: _plain(leaf) for name, leaf in arrays.items() if np.size(leaf)}
        library = orbax()
        place.mkdir(parents=True, exist_ok=True)
        with _quiet():
            writer.save(place / self.name, args=library.args.PyTreeSave(tree.unflatten(filled)))

    def finish(self, more: Mapping[str, Any] | None) -> None:
        """Wait until the arrays are there, and write the record with `more` in it, unless None."""
        with _quiet():
            self.writer.wait_until_finished()
        if jax.process_index() != 0 or more is None:
            return
        folder = self.place / self.name
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        sums = {str(path.relative_to(self.place)): _sum(path) for path in files}
        body = {"format": FORMAT, "arrays": self.name, "shapes": self.shapes, "files": sums}
        content = json.dumps(body | dict(more), separators=(",", ":"))
        whole = f'{{"sum":"{_digest(content.encode())}",\n"body":{content}}}\n'
        write_whole("Checkpoints.save", self.place / RECORD, whole.encode())
        sweep(self.place, self.name)


@contextlib.contextmanager
def _quiet() -> Generator[None]:
    """Keep orbax from writing tracebacks of what it raises as well."""

    def others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    logger = logging.getLogger("absl")
    logger.addFilter(others)
    try:
        yield
    finally:
        logger.removeFilter(others)


def _common() -> str:
    """A name that all processes choose."""
    from jax.experimental import multihost_utils

    drawn = np.frombuffer(secrets.token_bytes(4), np.uint32)
    return f"{int(multihost_utils.broadcast_one_to_all(drawn)[0]):08x}"


def _plain(leaf: Any) -> Any:
    """What is written of a leaf: an array that is on one device alone as one of NumPy, which takes
    half the time.
    """
    leaf = jax.random.key_data(leaf) if is_key(leaf) else leaf
    alone = jax.process_count() == 1 and len(leaf.sharding.device_set) == 1
    return np.asarray(leaf) if alone else leaf


def sweep(place: Path, kept: str | None) -> None:
    """Remove arrays in the folder of a checkpoint that are not those of its record."""
    for path in place.glob(f"{ARRAYS}*"):
        if kept is None or path.name != kept:
            shutil.rmtree(path, ignore_errors=True)


def remove(place: Path) -> None:
    """Remove a checkpoint, and of its folder nothing that belongs to somebody else."""
    (place / RECORD).unlink(missing_ok=True)
    sweep(place, None)
    if place.is_dir() and not any(place.iterdir()):
        place.rmdir()


def read_record(place: Path) -> dict[str, Any]:
    """What the record says.

    Raises:
        ValueError: If it is not as it was written.
    """
    text = (place / RECORD).read_text(errors="replace")
    try:
        found = json.loads(text)
        start = text.index('"body":') + len('"body":')
        whole = found["sum"] == _digest(text[start:-2].encode())
    except (ValueError, KeyError, TypeError):
        found, whole = {}, False
    if not whole:
        raise ValueError(f"{RECORD} is not as it was written")
    if found["body"]["format"] != FORMAT:
        raise ValueError(f"it has format {found['body']['format']}, not {FORMAT}")
    body = found["body"]
    shapes = {name: (tuple(shape), dtype) for name, (shape, dtype) in body["shapes"].items()}
    return body | {"shapes": shapes}


def read_whole(place: Path) -> dict[str, Any]:
    """The same, after a look at every file that it names.

    Raises:
        ValueError: If one is missing, or is not as it was written.
    """
    body = read_record(place)
    for name, expected in body["files"].items():
        path = place / name
        if not path.is_file():
            raise ValueError(f"{name} is missing")
        if _sum(path) != expected:
            raise ValueError(f"{name} is not as it was written")
    return body


def read_arrays(place: Path, body: Mapping[str, Any], wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays at these paths, each placed as the one that is wanted.

    Args:
        place: The folder of the checkpoint.
        body: Its record.
        wanted: Arrays or `ShapeDtypeStruct`s. What has a sharding over several devices is read by
            each device's part; the rest is put on the default device.
    """
    library = orbax()
    filled = {name: leaf for name, leaf in wanted.items() if np.prod(np.shape(leaf))}
    how = {name: _how(library, leaf) for name, leaf in filled.items()}
    reader = library.Checkpointer(library.PyTreeCheckpointHandler())
    args = library.args.PyTreeRestore(
        item=tree.unflatten(dict.fromkeys(filled, 0)),
        restore_args=tree.unflatten(how),
        partial_restore=True,
    )
    found = tree.flatten(reader.restore(place / body["arrays"], args=args)) if filled else {}
    reader.close()
    return {name: _placed(found.get(name), leaf) for name, leaf in wanted.items()}


def _how(library: Any, leaf: Any) -> Any:
    if _spread(leaf) and not is_key(leaf):
        return library.ArrayRestoreArgs(
            restore_type=jax.Array, sharding=leaf.sharding, global_shape=leaf.shape
        )
    return library.RestoreArgs(restore_type=np.ndarray)


def _spread(leaf: Any) -> bool:
    sharding = getattr(leaf, "sharding", None)
    return sharding is not None and len(sharding.device_set) > 1


def _placed(found: Any, leaf: Any) -> Any:
    """What was read as an array like `leaf`."""
    if is_key(leaf):
        kind = jax.random.key_impl(jax.numpy.zeros((), leaf.dtype))
        key = jax.random.wrap_key_data(jax.numpy.asarray(found), impl=kind)
        return jax.device_put(key, leaf.sharding) if _spread(leaf) else key
    if found is None:
        return jax.numpy.zeros(leaf.shape, leaf.dtype)
    return found if _spread(leaf) else jax.numpy.asarray(np.asarray(found))


def _sum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def agreed(folder: Path, found: tuple[int, dict] | None) -> tuple[int, dict[str, Any]] | None:
    """The step and the record that the first process found, in all of them."""
    if jax.process_count() == 1:
        return found
    from jax.experimental import multihost_utils

    step = int(multihost_utils.broadcast_one_to_all(np.asarray(-1 if found is None else found[0])))
    if step < 0:
        return None
    return found or (step, read_record(folder_of(folder, step)))


def reason(error: BaseException) -> str:
    """What the system said, out of all that the libraries put around it."""
    text = str(error)
    code = re.search(r"os_error_code='(\d+)'", text)
    number = int(code[1]) if code else getattr(error, "errno", None)
    return os.strerror(number) if number else text.partition("\n")[0] or type(error).__name__
