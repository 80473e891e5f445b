"""Where picture files lie: a folder or a ZIP archive, listed once and read by name.

Both are hostile territory.  Hidden files, thumbnails of servers, loops of links, members whose
names lead out of the archive, encrypted ones: none of it stops a listing, and nothing is ever
extracted.  What is passed over is counted and named.
"""

import contextlib
import os
import stat
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Protocol, Self

from kao.data.names import listed
from kao.data.pictures import EXTENSIONS, HEAD, HEIC, HEIC_EXTRA, RAW, begins_as_picture
from kao.data.prepared import IMAGES
from kao.errors import DataError, near_miss

TABLES = ("captions.csv", "metadata.csv", "metadata.jsonl", "dataset.json")
"""Files beside pictures that say more about them, in lower case."""

SYSTEM = frozenset(
    "@eadir/@recycle/@recently-snapshot/.@__thumb/#recycle/#snapshot/~snapshot/$recycle.bin/recycler/"
    "system volume information/found.000/network trash folder/temporary items/lost+found/__macosx/"
    ".trash/.trashes/.thumbnails/.ipynb_checkpoints".split("/")
)
"""Folders of servers and systems, in lower case, which hold thumbnails and what was deleted."""

_METHODS = {9: "Deflate64", 93: "Zstandard", 95: "XZ", 96: "JPEG", 98: "PPMd", 99: "AES"}
"""Ways in which ZIP files are compressed that Python may not know (APPNOTE 4.4.5)."""

_CLUTTER = ("thumbs.db", "desktop.ini")
_OTHER_TABLES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".xlsx")
_SHARDS = (".parquet", ".arrow")
_NEVER = (
    ".xml",
    ".npy",
    ".npz",
    ".pt",
    ".pth",
    ".safetensors",
    ".html",
    ".md",
    ".py",
    ".mp4",
    ".mov",
)
_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".zst", ".7z", ".rar")

RUN = "run.toml"
"""What makes a folder a run directory."""

MAX_BYTES = 1 << 29
"""Largest file that is read into memory; `pictures.MAX_PIXELS` of RGBA take less."""

_ENCRYPTED, _UTF8 = 1, 0x800  # bits of a ZIP member's flags


@dataclass
class Listing:
    """What a place holds.  Names are relative, with "/" between the parts.

    Attributes:
        pictures: Files with the extension of a picture, sorted by name.
        tables: Files named as one of `TABLES`.
        stamps: Name -> two numbers that change when the file does.
        oddities: What was passed over and why, for a person.
    """

    pictures: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    stamps: dict[str, tuple[int, int]] = field(default_factory=dict)
    oddities: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, files: Mapping[str, tuple[int, int]], head: Callable[[str], bytes]) -> Self:
        """Sort files by their names, and by their content where the names tell nothing.

        Args:
            files: Name -> stamp.
            head: The first `HEAD` bytes of a file; none where it cannot be read.
        """
        listing = cls(stamps=dict(files))
        system, hidden, others = list[str](), list[str](), dict[str, list[str]]()
        for name in sorted(files):
            *folders, last = name.lower().split("/")
            extension = os.path.splitext(last)[1]
            if not SYSTEM.isdisjoint(folders):
                system += [name] if extension in EXTENSIONS else []
            elif any(part.startswith(".") for part in (*folders, last)):
                hidden += [name] if extension in EXTENSIONS else []
            elif extension in EXTENSIONS:
                listing.pictures.append(name)
            elif last in TABLES:
                listing.tables.append(name)
            elif last not in _CLUTTER:
                others.setdefault(extension, []).append(name)
        listing._take_by_content(others, head)
        listing.odd(system, "folders of a system or server")
        listing.odd(hidden, "hidden files and folders")
        listing._pass_over(others)
        return listing

    def odd(self, names: Sequence[str], why: str) -> None:
        """Remember what was left out, the first few by name."""
        if names:
            count = f"{len(names):,} files, " if len(names) > 5 else ""
            self.oddities.append(f"left out {count}{listed(names, 5)}: {why}")

    def _take_by_content(self, others: dict[str, list[str]], head: Callable[[str], bytes]) -> None:
        """Take the pictures among files of other endings; the rest stays in `others`."""
        taken: list[str] = []
        for extension in others.keys() - {*_OTHER_TABLES, *_SHARDS, *_ARCHIVES, *RAW, *_NEVER}:
            found = {name for name in others[extension] if begins_as_picture(head(name))}
            others[extension] = [name for name in others[extension] if name not in found]
            taken += found
        if taken:
            self.pictures = sorted([*self.pictures, *taken])
            self.oddities.append(
                f"{len(taken):,} files begin as pictures, whatever their names end in, and are "
                f"read as such: {listed(sorted(taken), 5)}"
            )

    def _pass_over(self, others: Mapping[str, Sequence[str]]) -> None:
        """Count what is no picture, and say what a person may have expected of it."""
        kinds = {extension: len(names) for extension, names in others.items() if names}
        if not kinds:
            return
        most = sorted(kinds.items(), key=lambda kind: -kind[1])
        counts = listed([f"{n:,} {extension or 'without an ending'}" for extension, n in most])
        hints = [HEIC_EXTRA] if HEIC & kinds.keys() else []
        if unread := [name for kind in _OTHER_TABLES for name in others.get(kind, ())]:
            hints.append(
                f"captions and labels are read from {', '.join(TABLES)} alone, and not from "
                f"{listed(unread, 3)}"
            )
        if archives := [name for kind in _ARCHIVES for name in others.get(kind, ())]:
            zips = [name for name in archives if name.lower().endswith(".zip")]
            tables = listed(self.tables, 3)
            beside = f" here for {tables} to count" if self.tables else ""
            hints.append(
                f"for the pictures in it, name {zips[0]} itself, or unpack it{beside}"
                if zips
                else f"for the pictures in {listed(archives, 3)}, unpack it"
            )
        if shards := [name for kind in _SHARDS for name in others.get(kind, ())]:
            hints.append(
                f"for pictures in {listed(shards, 3)}, write hf: before the path of the folder"
            )
        self.oddities.append(
            f"passed over {sum(kinds.values()):,} files that are not read as pictures: {counts}"
            + "".join(f"; {hint}" for hint in hints)
        )


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
        broken, closed, ours = list[str](), list[str](), list[str]()
        try:
            with os.scandir(self.path):
                pass
        except OSError as error:
            raise DataError(
                f"The folder {self.path} cannot be read ({error.strerror}): check its permissions."
            ) from error
        files = {
            name: (about.st_size, about.st_mtime_ns)
            for name, about in _walk(self.path, broken, closed, ours)
        }
        listing = Listing.of(files, self._head)
        listing.odd(sorted(broken), "links that lead nowhere")
        listing.odd(sorted(closed), "folders that cannot be read")
        listing.odd(sorted(ours), "runs and prepared sets of kao")
        return listing

    def _head(self, name: str) -> bytes:
        try:
            with open(self.path / name, "rb") as file:
                return file.read(HEAD)
        except OSError:
            return b""

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


def _walk(
    root: Path, broken: list[str], closed: list[str], ours: list[str]
) -> Iterator[tuple[str, os.stat_result]]:
    """Names and stats of the regular files below `root`.

    Links that lead nowhere go to `broken`, folders that cannot be opened to `closed`, what kao has
    made to `ours`.
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
            ours.append(inside.rstrip("/"))
            continue
        for entry in entries:
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
                f"{path} is not a ZIP archive, or is damaged ({error}): expected a folder or a "
                f".zip file. Unpack an archive of another kind, and copy a damaged one again."
            ) from error
        names = [_name(member) for member in self._zip.infolist()]
        if self._prefix and not any(name.startswith(self._prefix) for name in names):
            folders = sorted({name.partition("/")[0] for name in names if "/" in name})
            raise DataError(
                f"{path} holds no folder {inside!r}{near_miss(inside, folders)}: "
                f"its folders are {listed(folders)}."
            )

    def listing(self) -> Listing:
        """List it from its directory of members; stamps are (size, CRC-32)."""
        leading_out: list[str] = []
        twice: list[str] = []
        for member in self._zip.infolist():
            name = _name(member)
            parts = PurePosixPath(name).parts
            if name.endswith("/") or not parts:
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
        files = {name: (member.file_size, member.CRC) for name, member in self._members.items()}
        listing = Listing.of(files, self._head)
        beside = [table for table in TABLES if (self.path.parent / table).is_file()]
        listing.odd(beside, f"lies beside {self.path.name}, and not in it")
        listing.odd(leading_out, "names that lead out of the archive")
        listing.odd(twice, "the archive holds a later member of the same name")
        return listing

    def _head(self, name: str) -> bytes:
        try:
            with self._lock, self._zip.open(self._members[name]) as file:
                return file.read(HEAD)
        except Exception:  # as in `read`, which says why
            return b""

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
        except NotImplementedError as error:
            number = member.compress_type
            method = _METHODS.get(number, f"number {number}")
            raise DataError(
                f"{name} in {self.path.name} is compressed by a method that Python cannot read "
                f"({method}): pack the archive again with Deflate, or unpack it and use the folder."
            ) from error
        # zlib.error, BadZipFile, EOFError, LZMAError, struct.error, ...
        except Exception as error:
            raise DataError(
                f"{name} in {self.path.name} is damaged ({error}): copy the archive again."
            ) from error


def _name(member: zipfile.ZipInfo) -> str:
    """Its name with "/" between the parts.

    Many programs write UTF-8 without saying so, which ZIP then takes for cp437.
    """
    name = member.filename
    if not member.flag_bits & _UTF8:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode()
    return name.replace("\\", "/")


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
