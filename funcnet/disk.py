"""Files that appear whole or not at all: each is written beside its place and then moved there."""

import errno
import glob
import os
import secrets
import stat
from pathlib import Path

from .types import require

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""


def write_whole(where: str, path: str | Path, content: bytes) -> None:
    """Write a file so that it appears whole or not at all.

    What a link leads to is written, and the link stays; a file that is there keeps its
    permissions; a device or a pipe is written to as it is. What a process that was killed left half
    written goes away with the next file of that name.

    Raises:
        ValueError: If `path` cannot be written.
    """
    path = Path(path)
    try:
        _write(Path(os.path.realpath(path)), content)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        remedy = "Choose a folder that exists and that you may write to."
        require(False, where, f"a place to write, {path}", reason, remedy)


def _write(path: Path, content: bytes) -> None:
    mode = path.stat().st_mode if path.exists() else None
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if mode is not None and not stat.S_ISREG(mode):
        path.write_bytes(content)
        return
    _remove_abandoned(path)
    partial = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}"
    try:
        with partial.open("xb") as file:
            file.write(content)
        if mode is not None:
            partial.chmod(stat.S_IMODE(mode))
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


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
