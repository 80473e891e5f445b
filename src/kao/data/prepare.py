"""Decode a source once, into a prepared set that training reads without decoding.

    preparation = Preparation(source, size=64)
    for seen in preparation:            # progress is a loop in the caller
        print(seen, "of", len(source))
    prepared = preparation.finish()

`prepare(source, size=64)` is the same with a progress bar on a terminal.

A set is written beside its final place and renamed when it is whole, so it is whole or absent,
whatever happens.  Where a set of the same source, size and crop stands already, it is reused.
"""

import contextlib
import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray

from kao.data import prepared as files
from kao.data.audit import Facts, Tally, contact_sheet, examine, repeated
from kao.data.item import ImageSource, Noted
from kao.data.pictures import Crop, check_crop, fit
from kao.data.prepared import Manifest, PreparedSet
from kao.errors import ConfigError, DataError, OutputError
from kao.files import at_home, cache_folder, sync, writing
from kao.machine import usable_cores

MIN_SIZE = 8
"""Smallest side of a prepared picture, in pixels."""

_CHUNK = 16  # pictures a thread takes at a time
_MB = 1_000_000

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def prepare(
    source: ImageSource,
    *,
    size: int,
    crop: Crop = "centre",
    out: Path | None = None,
    workers: int | None = None,
) -> PreparedSet:
    """Prepare a source, or reuse what was prepared; with a progress bar if stderr is a terminal.

    Args: as of `Preparation`.

    Raises: as `Preparation` and its methods.
    """
    preparation = Preparation(source, size=size, crop=crop, out=out, workers=workers)
    if sys.stderr.isatty():
        _show(preparation, len(source))
    return preparation.finish()


def _show(preparation: "Preparation", total: int) -> None:
    # rich takes a moment to import, and most callers have no terminal.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("preparing", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total)
        for seen in preparation:
            bar.update(task, completed=seen)


class Preparation:
    """The work of preparing a source, to be iterated over.

    Args:
        source: What to read.  Its pictures are asked for from several threads.
        size: Side of the prepared pictures in pixels, 8 or more.
        crop: How pictures are made square, see `pictures.fit`.
        out: Folder of the prepared set; by default one in the cache whose name follows from
            source, size and crop.
        workers: Threads; by default one for each core, 16 at most.

    Raises:
        ConfigError: Size, crop or workers cannot work.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        size: int,
        crop: Crop = "centre",
        out: Path | None = None,
        workers: int | None = None,
    ):
        if size < MIN_SIZE:
            raise ConfigError(f"size = {size}; expected {MIN_SIZE} pixels or more.")
        if workers is not None and workers < 1:
            raise ConfigError(f"workers = {workers}; expected 1 or more.")
        self._source, self._size, self._crop = source, size, check_crop(crop)
        self._workers = workers or min(usable_cores(), 16)
        self._key = _key(source, size, crop)
        place = cache_folder() / "prepared" / self._key if out is None else at_home(out)
        self.path = place.absolute()

    def __iter__(self) -> Iterator[int]:
        """Do the work; nothing where the set stands already.

        Leaving the loop early, by whatever way, leaves nothing behind.

        Yields:
            How many pictures of the source were gone through, up to len(source).

        Raises:
            DataError: Fewer than two pictures could be read.
            OutputError: The place is not writable, in use by something else, or full.
        """
        if self.standing():
            return
        self._check_place()
        partial = _beside(self.path)
        try:
            with self._writing():
                partial.mkdir()
                yield from self._fill(partial)
                self._publish(partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def finish(self) -> PreparedSet:
        """Do what is left to do, and open the set.

        Raises:
            DataError, OutputError: See `__iter__`.
        """
        for _ in self:
            pass
        return PreparedSet.open(self.path)

    def standing(self) -> PreparedSet | None:
        """The whole set of the same source, size and crop that is in place; None without one."""
        try:
            prepared = PreparedSet.open(self.path)
        except (DataError, OSError):  # the latter for a place that may not be looked into
            return None
        return prepared if prepared.manifest.key == self._key else None

    def _check_place(self) -> None:
        """Refuse what cannot end well before an hour of work, and clean up after the killed."""
        with self._writing():
            if self.path.exists() and not _replaceable(self.path):
                raise OutputError(
                    f"{self.path} is in the way, for it is not a prepared set: "
                    f"choose another place, or remove it."
                )
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _clean(self.path)
            free = shutil.disk_usage(self.path.parent).free
        if free < self._needed:
            raise self._full(f"and {free / _MB:,.0f} MB are free")

    @property
    def _needed(self) -> int:
        """Bytes of pixels."""
        return len(self._source) * 3 * self._size**2

    def _full(self, met: str) -> OutputError:
        return OutputError(
            f"The prepared set {self.path} needs {self._needed / _MB:,.0f} MB, {met}: free some "
            f"space, choose a smaller size, or another place (out, or KAO_CACHE for all sets)."
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Operating-system errors as sentences; a full disk says how much was needed."""
        try:
            with writing(self.path):
                yield
        except OutputError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
                raise self._full("and the disk is full") from cause
            raise

    def _fill(self, folder: Path) -> Iterator[int]:
        """Write all files of the set; yields progress."""
        met = _Met()
        count = len(self._source)
        chunks = (range(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK))
        seen = 0
        with open(folder / files.IMAGES, "wb") as images, _threads(self._workers) as pool:
            for chunk in _in_order(pool, self._fitted, chunks, ahead=self._workers + 2):
                for picture in chunk:
                    if isinstance(picture, _Fitted):
                        images.write(picture.pixels.data)
                    met.add(picture)
                seen += len(chunk)
                yield seen
        if len(met.keys) < 2:
            first = f" The first that could not: {met.skipped[0]}" if met.skipped else ""
            raise DataError(
                f"{len(met.keys)} of {count:,} pictures could be read; expected two or more.{first}"
            )
        self._describe(folder, met)

    def _describe(self, folder: Path, met: "_Met") -> None:
        """Write all files but the pixels."""
        manifest = Manifest(
            format=files.FORMAT,
            key=self._key,
            count=len(met.keys),
            size=self._size,
            crop=self._crop,
            classes=tuple(self._source.classes),
            captioned=met.captioned > 0,
            fingerprint=met.content.hexdigest(),
            source=repr(self._source),
            source_fingerprint=self._source.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        audit, groups = met.tally.audit(
            keys=met.keys,
            classes=_by_class(met.labels, manifest.classes),
            captions=met.captioned,
            size=self._size,
            crop=self._crop,
            skipped=met.skipped,
            notes=self._source.notes if isinstance(self._source, Noted) else (),
        )
        np.save(folder / files.GROUPS, groups)
        if manifest.classes:
            np.save(folder / files.LABELS, np.array(met.labels, np.int64))
        if manifest.captioned:
            _write(folder / files.CAPTIONS, json.dumps(met.captions, indent=0))
        if met.skipped:
            _write(folder / files.SKIPPED, "\n".join(met.skipped) + "\n")
        _write(folder / files.KEYS, json.dumps(met.keys, indent=0))
        _write(folder / files.AUDIT, audit.to_json())
        shape = (manifest.count, 3, self._size, self._size)
        pixels = np.memmap(folder / files.IMAGES, np.uint8, "r", shape=shape)
        contact_sheet(pixels, marked=repeated(groups)).save(folder / files.CONTACT)
        _write(folder / files.MANIFEST, manifest.to_json())

    def _fitted(self, indices: range) -> "list[_Fitted | str]":
        """Prepared pictures; for one that cannot be read, the reason.  Runs in many threads."""
        pictures: list[_Fitted | str] = []
        for index in indices:
            name = f"Picture {index}"
            try:
                item = self._source[index]
                name = item.key
                square = fit(item.image, size=self._size, crop=self._crop, name=name)
                pixels = np.ascontiguousarray(square.numpy())
                facts = examine(item, pixels)
            except DataError as error:
                pictures.append(str(error))
            # torch says with a RuntimeError that a picture is too large for the memory.
            except (OSError, MemoryError, RuntimeError) as error:
                why = str(error).partition("\n")[0] or type(error).__name__
                pictures.append(f"{name} cannot be prepared ({why}): copy it again or delete it.")
            else:
                pictures.append(_Fitted(pixels, name, item.label, item.caption, facts))
        return pictures

    def _publish(self, partial: Path) -> None:
        """Give the whole set its name, in place of an older one."""
        for file in (*partial.iterdir(), partial):
            sync(file)
        try:
            partial.rename(self.path)
        except OSError:
            # Another process may have finished the same work a moment ago: then that is it.
            if self.standing():
                return
            if not self.path.exists():
                raise
            old = _beside(self.path)
            self.path.rename(old)
            partial.rename(self.path)
            shutil.rmtree(old, ignore_errors=True)
        sync(self.path.parent)


class _Fitted(NamedTuple):
    pixels: NDArray[np.uint8]
    key: str
    label: int | None
    caption: str | None
    facts: Facts


class _Met:
    """What has been met so far, but for the pixels, which are on disk already."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.labels: list[int] = []
        self.captions: list[str | None] = []
        self.skipped: list[str] = []
        self.tally = Tally()
        self.content = hashlib.sha256()

    def add(self, picture: "_Fitted | str") -> None:
        """Take in a picture, or the reason why there is none."""
        if isinstance(picture, str):
            self.skipped.append(picture)
            return
        self.keys.append(picture.key)
        self.labels.append(-1 if picture.label is None else picture.label)
        self.captions.append(picture.caption)
        self.tally.add(picture.facts)
        self.content.update(picture.pixels.data)

    @property
    def captioned(self) -> int:
        """How many pictures have a caption."""
        return sum(caption is not None for caption in self.captions)


def _key(source: ImageSource, size: int, crop: Crop) -> str:
    """Names all that decides the content of a prepared set."""
    decides = (files.FORMAT, source.fingerprint, tuple(source.classes), size, crop)
    return hashlib.sha256(repr(decides).encode()).hexdigest()[:32]


@contextlib.contextmanager
def _threads(count: int) -> Iterator[Executor]:
    """A pool that, on the way out, finishes what it is at and drops what it has not begun."""
    pool = ThreadPoolExecutor(count, thread_name_prefix="kao-prepare")
    try:
        yield pool
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _in_order(
    pool: Executor, work: Callable[[_In], _Out], inputs: Iterable[_In], *, ahead: int
) -> Iterator[_Out]:
    """Results in the order of the inputs, with no more than `ahead` of them in memory."""
    waiting: deque[Callable[[], _Out]] = deque()
    for given in inputs:
        waiting.append(pool.submit(work, given).result)
        if len(waiting) == ahead:
            yield waiting.popleft()()
    while waiting:
        yield waiting.popleft()()


def _by_class(labels: Sequence[int], classes: Sequence[str]) -> dict[str, int]:
    counts = Counter(labels)
    return {name: counts[number] for number, name in enumerate(classes)}


def _write(file: Path, text: str) -> None:
    # Names of files that are not UTF-8 hold surrogates, which have no encoding.
    file.write_text(text, encoding="utf-8", errors="backslashreplace")


def _replaceable(path: Path) -> bool:
    """Whether a folder is empty, or holds nothing but what a prepared set consists of."""
    ours = {files.MANIFEST, files.IMAGES, files.GROUPS, files.LABELS, files.KEYS, files.CAPTIONS}
    ours |= {files.AUDIT, files.CONTACT, files.SKIPPED}
    return path.is_dir() and all(entry.name in ours for entry in path.iterdir())


def _beside(path: Path) -> Path:
    """A new name in the same folder, which says whose it is for `_clean`."""
    unique = f"{platform.node()}.{os.getpid()}.{secrets.token_hex(4)}"
    return path.with_name(f".{path.name}.{unique}.partial")


def _clean(path: Path) -> None:
    """Remove what processes of this machine that are no more have left beside a place."""
    prefix = f".{path.name}.{platform.node()}."
    for left in path.parent.iterdir():
        if left.name.startswith(prefix) and left.name.endswith(".partial"):
            pid = left.name.removeprefix(prefix).partition(".")[0]
            if pid.isdecimal() and not psutil.pid_exists(int(pid)):
                shutil.rmtree(left, ignore_errors=True)
