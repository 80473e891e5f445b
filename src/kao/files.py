"""Files and folders: where the cache is, and writing so that a thing is whole or absent."""

import difflib
import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from kao.errors import ConfigError, OutputError

LOCK = ".lock"

_PART = 40
"""Letters of a file's name that are in the name it has while it is written."""

_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udc7f\udd00-\udfff]")
"""Controls, line breaks, changes of the direction of writing, and surrogates that are no byte."""


def readable(text: str) -> str:
    r"""One line of text, which may hold names that people gave, as it may be shown anywhere.

    What moves a cursor, colours a terminal, breaks a line or has no encoding becomes an escape:
    "a\nb" with a line break is shown as it is written here.  Names whose bytes are not UTF-8
    show those as "\xe4".  The text encodes as UTF-8, whatever was put in.
    """
    seen = _UNSEEN.sub(_escaped, text).encode("utf-8", "surrogateescape")
    # Bytes that a system without UTF-8 held apart may make a letter together, or a control.
    return _UNSEEN.sub(_escaped, seen.decode("utf-8", "backslashreplace"))


def _escaped(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode()


def at_home(path: str | Path) -> Path:
    """A path as it was typed, with "~" and "~name" as the home directories that they mean.

    Raises:
        ConfigError: There is no such directory.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        whose = Path(path).parts[0]
        raise ConfigError(
            f"{path} begins in the home directory {whose}, and this machine knows none of that "
            f"name{' (HOME is not set)' if whose == '~' else ''}: write the path out."
        ) from None


def cache_folder() -> Path:
    """Where kao keeps what it can make or fetch again: $KAO_CACHE, or else ~/.cache/kao.

    Raises:
        ConfigError: It would be in a home directory, and there is none.
    """
    if given := os.environ.get("KAO_CACHE"):
        return at_home(given)
    try:
        return at_home("~/.cache/kao")
    except ConfigError:
        raise ConfigError(
            "There is no home directory to keep prepared pictures and fetched weights in (HOME is "
            "not set): set KAO_CACHE to a folder."
        ) from None


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn an operating-system error while writing to `place` into a sentence.

    Raises:
        OutputError: The disk is full, the place is not writable, or a file is in the way.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise OutputError(
                f"The disk is full while writing {place}: free some space, or choose another place."
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            other = (
                "set KAO_CACHE to another folder" if _in_cache(place) else "choose another place"
            )
            raise OutputError(
                f"{place} is not writable: change its permissions, or {other}."
            ) from error
        if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise OutputError(
                f"{place} cannot be written, since a file or folder of that name is in the way: "
                f"choose another place."
            ) from error
        raise OutputError(f"{place} cannot be written: {error.strerror or error}.") from error


def _in_cache(place: Path) -> bool:
    try:
        return place.absolute().is_relative_to(cache_folder().absolute())
    except ConfigError:  # there is no cache
        return False


def beside_file(path: Path) -> Path:
    """Where a file is written before it is renamed to `path`.

    Raises:
        OutputError: What has the name `path` is a folder, a device or a pipe, which a rename
            would replace or stumble over.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise OutputError(f"{path} is in the way, since it is no file: choose another place.")
    # A part of the name, which may be as long as a file system allows.
    return path.with_name(f".{path.name[:_PART]}.{os.getpid()}")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A file to write, which takes its name `path` only when it is whole and on the disk.

    Raises:
        OutputError: It cannot be written, or what has that name is no file.
    """
    beside = beside_file(path)
    with writing(path):
        try:
            yield beside
            sync(beside)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a text file in one go.

    Raises:
        OutputError: It cannot be written.
    """
    with new_file(path) as beside:
        beside.write_bytes(encoded(text))


def encoded(text: str) -> bytes:
    """A text as UTF-8 that holds any name, those that are not UTF-8 included, for `read_text`."""
    return text.encode("utf-8", "surrogatepass")


def read_text(path: Path) -> str:
    """What `encoded` made of a text, the same names included.

    Raises:
        OSError: It cannot be read.
        UnicodeDecodeError: It is no UTF-8.
    """
    return path.read_text(encoding="utf-8", errors="surrogatepass")


@contextmanager
def tensors_of(path: Path) -> Iterator[Any]:
    """A .safetensors file, as `safetensors.safe_open` gives it to PyTorch.

    Raises:
        OSError, SafetensorError: It cannot be read, or is none.
    """
    from safetensors import safe_open

    with path.open("rb") as file:
        # It takes names in UTF-8 alone; a file that is open has another, by its number.
        odd = readable(str(path)) != str(path)
        name = f"/dev/fd/{file.fileno()}" if odd else str(path)
        with safe_open(name, framework="pt") as opened:
            yield opened


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to fill, which takes its name `path` only when it is whole.

    What is inside is brought to the disk before the rename.  A folder that has that name is kept
    until then, and stays after an error.  What a killed process left is removed the next time, or
    brought back: see `bring_back`.

    Raises:
        OutputError: It cannot be written.
    """
    beside, aside = (path.with_name(f".{path.name}.{end}") for end in ("partial", "old"))
    with writing(path):
        _settle(aside, path)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        try:
            yield beside
            for file in beside.rglob("*"):
                sync(file)
            sync(beside)
            if path.is_dir():
                path.rename(aside)
            beside.rename(path)
            sync(path.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
            _settle(aside, path)


def _settle(aside: Path, path: Path) -> None:
    """Give a folder that was renamed aside its name back, or remove it where the new one is."""
    if path.exists():
        shutil.rmtree(aside, ignore_errors=True)
    elif aside.exists():
        aside.rename(path)


def bring_back(parent: Path) -> None:
    """Bring back the folders in `parent` that a kill caught while `new_folder` replaced them.

    Raises:
        OutputError: One cannot be renamed.
    """
    for aside in parent.glob(".*.old"):
        with writing(aside):
            _settle(aside, parent / aside.name.removeprefix(".").removesuffix(".old"))


def hold(folder: Path, *, tell: Callable[[str], None]) -> IO[str]:
    """Keep other processes out of a folder until the file that is returned is closed.

    The operating system lets go of it when the process ends, however it ends.  Where there are
    no POSIX locks (Windows) nothing is locked.

    Args:
        folder: It must exist.
        tell: Called with a sentence where the file system has no locks, and nothing is locked.

    Raises:
        OutputError: Another process holds it.
    """
    with writing(folder / LOCK):
        file = (folder / LOCK).open("w", encoding="utf-8")
    try:
        import fcntl
    except ImportError:
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.close()
            raise OutputError(
                f"{folder} is in use by another process: wait until it ends, or choose another "
                f"place."
            ) from None
        tell(
            f"{folder} cannot be locked ({error.strerror or error}), so take care that no other "
            f"process writes there."
        )
    return file


def sync(path: Path) -> None:
    """Bring a file or a folder's list of names to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_npz(path: Path, array: Any) -> None:
    """Write one array as `arr_0` of a compressed .npz, the form that FID scripts read.

    Args:
        path: Folders on the way are made.
        array: NumPy.

    Raises:
        OutputError: It cannot be written.
    """
    import numpy as np

    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Given a name, NumPy would add ".npz" where it is missing.
    with new_file(path) as beside, beside.open("wb") as file:
        np.savez_compressed(file, array)


def near_path(path: Path) -> str:
    """What stands where a path would be and was probably meant, as words to add to a message."""
    try:
        names = [file.name for file in path.parent.iterdir()]
    except OSError:  # there is no such folder, or it cannot be read
        return ""
    near = difflib.get_close_matches(path.name, names, n=1)
    return f' (did you mean "{path.with_name(near[0])}"?)' if near else ""
