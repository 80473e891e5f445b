"""Where picture files lie: a folder or a ZIP archive, listed once and read by name.

Both are hostile territory.  Hidden files, `__MACOSX`, loops of links, members whose names lead
out of the archive, encrypted ones: none of it stops a listing, and nothing is ever extracted.
"""

import os
import stat
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol

from kao.data.names import listed
from kao.data.pictures import EXTENSIONS
from kao.data.prepared import IMAGES
from kao.errors import DataError, near_miss

TABLES = ("captions.csv", "metadata.csv", "metadata.jsonl")
"""Files beside pictures that say more about them."""

RUN = "run.toml"
"""What makes a folder a run directory."""

MAX_BYTES = 1 << 29
"""Largest file that is read into memory; `pictures.MAX_PIXELS` of RGBA take less."""

_ENCRYPTED = 1  # bit of a ZIP member's flags


@dataclass
class Listing:
    """What a place holds.  Names are relative, with "/" between the parts.

    Attributes:
        pictures: Files with the extension of a picture, sorted by name.
        tables: Files named as one of `TABLES`.
        stamps: Name -> two numbers that change when the file does.
        others: How many files of other extensions there are.
        oddities: What was left out and why, for a person.
    """

    pictures: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    oddities: list[str] = field(default_factory=list)

    def add(self, name: str, stamp: tuple[int, int]) -> None:
        """Sort one file in, by the end of its name."""
        last = name.rpartition("/")[2]
        extension = os.path.splitext(last)[1].lower()
        if extension in EXTENSIONS:
            self.pictures.append(name)
        elif last.lower() in TABLES:
            self.tables.append(name)
        else:
            self.others[extension or "no extension"] += 1
            return
        self.stamps[name] = stamp

    def odd(self, names: Sequence[str], why: str) -> None:
        """Remember what was left out, the first few by name."""
        if names:
            self.oddities.append(f"left out {listed(names, 5)}: {why}")


class Storage(Protocol):
    """A place that holds files.  Reading may be done from many threads at once."""

    def listing(self) -> Listing:
        """List it, once.

        Raises:
            DataError: It cannot be listed.
        """

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            DataError: It cannot be read; the message names it and says why.
        """


def _hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"


def _too_large(name: str, size: int) -> DataError:
    return DataError(
        f"{name} holds {size:,} bytes, and at most {MAX_BYTES:,} are read for one picture: "
        f"make it smaller or delete it."
    )


class Folder:
    """A folder and all folders below it; links are followed, loops are not.

    Args:
        path: An existing folder.
    """

    def __init__(self, path: Path):
        self.path = path

    def listing(self) -> Listing:
        """List it with one system call per file; stamps are (size, mtime in nanoseconds)."""
        listing = Listing()
        broken: list[str] = []
        closed: list[str] = []
        try:
            with os.scandir(self.path):
                pass
        except OSError as error:
            raise DataError(
                f"The folder {self.path} cannot be read ({error.strerror}): check its permissions."
            ) from error
        for name, about in _walk(self.path, broken, closed):
            listing.add(name, (about.st_size, about.st_mtime_ns))
        listing.pictures.sort()
        listing.odd(sorted(broken), "links that lead nowhere")
        listing.odd(sorted(closed), "folders that cannot be read")
        return listing

    def read(self, name: str) -> bytes:
        """The content of a file; `name` comes from the listing."""
        try:
            with open(self.path / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size > MAX_BYTES:
                    raise _too_large(name, size)
                return file.read()
        except OSError as error:
            raise DataError(
                f"{name} cannot be read ({error.strerror}): check that it is still there "
                f"and that you may read it."
            ) from error


def _walk(root: Path, broken: list[str], closed: list[str]) -> Iterator[tuple[str, os.stat_result]]:
    """Names and stats of the regular files below `root`.

    Links that lead nowhere go to `broken`, folders that cannot be opened to `closed`.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            folder = os.stat(root / inside)
            # Each folder once, by whatever name: links may lead back up.
            if (folder.st_dev, folder.st_ino) in seen:
                continue
            seen.add((folder.st_dev, folder.st_ino))
            entries = list(os.scandir(root / inside))
        except OSError:
            closed.append(inside.rstrip("/"))
            continue
        names = {entry.name for entry in entries}
        # A set that was prepared into the folder itself, or a run in it (`kao train .` makes one):
        # contact sheets and what a model drew are no faces.
        if IMAGES in names or (inside and RUN in names):
            continue
        for entry in entries:
            if _hidden(entry.name):
                continue
            name = inside + entry.name
            try:
                about = entry.stat()
            except OSError:
                broken.append(name)
                continue
            if stat.S_ISDIR(about.st_mode):
                waiting.append(name + "/")
            elif stat.S_ISREG(about.st_mode):
                yield name, about


class Archive:
    """A ZIP archive, or one folder inside it.

    Args:
        path: An existing file.
        inside: A folder in the archive, as "train"; empty for all of it.

    Raises:
        DataError: The file is no ZIP archive or is damaged.
    """

    def __init__(self, path: Path, inside: str = ""):
        self.path = path
        self._prefix = f"{inside.strip('/')}/" if inside.strip("/") else ""
        self._lock = threading.Lock()
        self._members: dict[str, zipfile.ZipInfo] = {}
        try:
            self._zip = zipfile.ZipFile(path)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read ({error.strerror}): check its permissions."
            ) from error
        # A directory of members that was tampered with makes zipfile raise nearly anything.
        except Exception as error:
            raise DataError(
                f"{path} is not a ZIP archive, or is damaged ({error}): "
                f"expected a folder or a .zip file; copy it again."
            ) from error
        names = self._zip.namelist()
        if self._prefix and not any(name.startswith(self._prefix) for name in names):
            folders = sorted({name.partition("/")[0] for name in names if "/" in name})
            raise DataError(
                f"{path} holds no folder {inside!r}{near_miss(inside, folders)}: "
                f"its folders are {listed(folders)}."
            )

    def listing(self) -> Listing:
        """List it from its directory of members; stamps are (size, CRC-32)."""
        listing = Listing()
        leading_out: list[str] = []
        twice: list[str] = []
        for member in self._zip.infolist():
            name = member.filename.replace("\\", "/")
            parts = PurePosixPath(name).parts
            if name.endswith("/") or not parts or any(map(_hidden, set(parts) - {".."})):
                continue
            if name.startswith("/") or ".." in parts or ":" in parts[0]:
                leading_out.append(name)
                continue
            # Without "." and doubled slashes, so that a file has one name.
            name = "/".join(parts)
            if name.startswith(self._prefix):
                name = name.removeprefix(self._prefix)
                if name in self._members:
                    twice.append(name)
                self._members[name] = member
        for name, member in self._members.items():
            listing.add(name, (member.file_size, member.CRC))
        listing.pictures.sort()
        listing.odd(leading_out, "names that lead out of the archive")
        listing.odd(twice, "the archive holds a later member of the same name")
        return listing

    def read(self, name: str) -> bytes:
        """The content of a member, with its checksum verified; `name` comes from the listing."""
        member = self._members[name]
        if member.flag_bits & _ENCRYPTED:
            raise DataError(f"{name} is encrypted: unpack the archive and use the folder.")
        if member.file_size > MAX_BYTES:
            raise _too_large(name, member.file_size)
        try:
            # ZipFile counts its open members without a lock.  Reading is a small part of the
            # work, and one shared directory of members is what fits in memory.
            with self._lock:
                return self._zip.read(member)
        # zlib.error, BadZipFile, EOFError, NotImplementedError, LZMAError, struct.error, ...
        except Exception as error:
            raise DataError(
                f"{name} in {self.path.name} is damaged ({error}): copy the archive again."
            ) from error


def find(path: Path) -> Storage:
    """The storage at a path: a folder, a ZIP file, or a folder inside one ("faces.zip/train").

    Raises:
        DataError: There is nothing, or a file that is no archive.
    """
    try:
        if path.is_dir():
            return Folder(path)
        archive = next((part for part in (path, *path.parents) if part.is_file()), None)
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): check its permissions."
        ) from error
    if archive is not None:
        return Archive(archive, path.relative_to(archive).as_posix().removeprefix("."))
    raise DataError(
        f"There is no folder or ZIP file {path}: check the path (you are in {Path.cwd()})."
    )
