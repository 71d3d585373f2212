"""Files that appear whole or not at all: each is written beside its place and then moved there;
and folders that one process writes to at a time.
"""

import contextlib
import errno
import glob
import importlib
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from .types import require

PARTIAL = ".partial"
"""How the name of a file ends that is being written."""

LOCK = ".lock"
"""The file in a folder by which its one writer is known."""

_held: dict[tuple[int, Path], int] = {}
"""How often this process holds which folder."""


@contextlib.contextmanager
def locked(
    where: str, folder: str | Path, remedy: str = "Wait until it ends, or choose another folder."
) -> Generator[None]:
    """Keep a folder, which is made if it is missing, from all other processes that ask for it.

    The lock ends with the process that holds it, however it ends, and is not handed on to the
    processes that it starts. The process itself may ask again. Where there are no locks on files,
    as on Windows, nothing is kept from anybody.

    Raises:
        ValueError: If another process holds the folder, or it cannot be written to.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, locked("train", folder):
    ...     os.listdir(folder)
    ['.lock']
    """
    file, held = None, (os.getpid(), Path(os.path.realpath(folder)))
    if not _held.get(held):
        file = _lock(where, held[1], remedy)
    _held[held] = _held.get(held, 0) + 1
    try:
        yield
    finally:
        _held[held] -= 1
        if not _held[held]:
            del _held[held]
        if file is not None:
            with contextlib.suppress(OSError):
                (held[1] / LOCK).unlink()
            file.close()


def _lock(where: str, folder: Path, remedy: str) -> BinaryIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError as error:
        expected = f"a folder to write to, {folder}"
        require(False, where, expected, error.strerror, "Choose a folder that you may write to.")
        raise
    if os.name == "posix":
        fcntl = importlib.import_module("fcntl")
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            other = "another process that writes to it"
            require(False, where, f"{folder} for this process alone", other, remedy)
            raise
        if not _is_at(file, folder / LOCK):  # its holder took it away before it let go
            file.close()
            return _lock(where, folder, remedy)
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


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
