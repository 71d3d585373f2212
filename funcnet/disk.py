"""Files that appear whole or not at all: each is written beside its place and then moved there."""

import glob
import os
import tempfile
from pathlib import Path

from .types import require

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""


def write_whole(where: str, path: str | Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    What a process that was killed left half written goes away with the next file of that name.

    Raises:
        ValueError: If `path` cannot be written.
    """
    path, partial = Path(path), None
    try:
        _remove_abandoned(path)
        own = f".{path.name}.{os.getpid()}."
        handle, partial = tempfile.mkstemp(PARTIAL, own, path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(partial, 0o644)
        os.replace(partial, path)
    except OSError as error:
        if partial is not None:
            Path(partial).unlink(missing_ok=True)
        remedy = "Choose a folder that exists and that you may write to."
        require(False, where, f"a place to write, {path}", error.strerror, remedy)


def _remove_abandoned(path: Path) -> None:
    """Remove the partial files of `path` whose process is gone."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{PARTIAL}"):
        writer = partial.name.removeprefix(f".{path.name}.").partition(".")[0]
        if writer.isdigit() and not _runs(int(writer)):
            partial.unlink(missing_ok=True)


def _runs(process: int) -> bool:
    if os.name != "posix":
        return True  # elsewhere there is no harmless way to ask
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
