"""Sets of pictures to be scored: folders, archives, arrays, sources and prepared sets.

A set is known by its content: each picture has a digest, and the fingerprint of the set follows
from all of them in whatever order they came.  So the same pictures under other names are the
same set, a seeded subset is the same pictures, and the pictures that two sets share are found.
"""

import hashlib
import itertools
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import numpy as np
import torch
from torch import Tensor

from kao.data.folders import FolderSource
from kao.data.item import ImageSource, Item
from kao.data.pictures import Crop
from kao.data.prepare import prepare
from kao.data.prepared import IMAGES, MANIFEST, PreparedSet
from kao.data.sources import SOURCES, open_source
from kao.errors import ConfigError, DataError
from kao.machine import usable_cores
from kao.seeds import mixed_seed

_CHOICE = 0xC401CE  # so that a choice is no other random thing of the same seed


@dataclass(frozen=True, eq=False)
class PictureSet:
    """Pictures of one size.

    Attributes:
        name: What a person called them: a folder, a file, a run.
        images: uint8, (N, 3, S, S), RGB, on the CPU; it may be a file that is looked into.
        digests: N SHA-256 of the pictures' bytes.
        fingerprint: SHA-256 of the sorted digests, in hexadecimal.
        keys: N names of the pictures.
        labels: int64, (N,), class indices, -1 for none; None where there are no classes.
        classes: Class names in index order.
        notes: What a person should know of how they were read, a sentence each.
    """

    name: str
    images: Tensor
    digests: tuple[bytes, ...]
    fingerprint: str
    keys: Sequence[str]
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        images: Tensor,
        *,
        keys: Sequence[str] | None = None,
        labels: Tensor | None = None,
        classes: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Self:
        """The set of these pictures.

        Args:
            name: What to call it.
            images: uint8, (N, 3, S, S), RGB, on the CPU.
            keys: N names; None: their numbers.
            labels: int64, (N,), class indices, -1 for none; None: there are no classes.
            classes: Class names in index order.
            notes: A sentence each.
        """
        pixels = images.numpy()
        digests = tuple(hashlib.sha256(np.ascontiguousarray(p).data).digest() for p in pixels)
        return cls(
            name,
            images,
            digests,
            _fingerprint(digests),
            keys if keys is not None else [f"{i:06d}" for i in range(len(images))],
            labels,
            tuple(classes),
            tuple(notes),
        )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.images.shape[-1]

    @property
    def order(self) -> Tensor:
        """Indices that sort the digests: int64, (N,).  It is no property of names or places."""
        return torch.tensor(sorted(range(len(self)), key=self.digests.__getitem__))

    def lots(self, *, seed: int) -> Tensor:
        """A random order: int64 indices, (N,).

        It follows from the pictures and the seed, in whatever order the pictures came.

        Args:
            seed: 0 or more.
        """
        generator = torch.Generator().manual_seed(mixed_seed(_CHOICE, seed))
        return self.order[torch.randperm(len(self), generator=generator)]

    def take(self, indices: Tensor) -> Self:
        """Some of the pictures as a set of its own, with the same name.

        Args:
            indices: int64, (n,).
        """
        chosen: list[int] = indices.tolist()
        digests = tuple(self.digests[i] for i in chosen)
        return replace(
            self,
            images=self.images[indices],
            digests=digests,
            fingerprint=_fingerprint(digests),
            keys=[self.keys[i] for i in chosen],
            labels=None if self.labels is None else self.labels[indices],
        )

    def some(self, n: int, *, seed: int) -> Self:
        """`n` pictures chosen at random, in the order of this set.

        Of two numbers, the pictures of the smaller are among those of the larger.

        Args:
            n: How many; all of them where there are no more.
            seed: 0 or more; see `lots`.
        """
        return self if n >= len(self) else self.take(self.lots(seed=seed)[:n].sort().values)

    def is_of(self, name: str) -> Tensor:
        """Which pictures are of a class: bool, (N,)."""
        if self.labels is None or name not in self.classes:
            return torch.zeros(len(self), dtype=torch.bool)
        return self.labels == self.classes.index(name)


def overlap(one: PictureSet, other: PictureSet) -> Tensor:
    """Which pictures of a set are in another too, pixel for pixel.

    Args:
        one: The set that is asked about.
        other: Where they are looked for; of the same size, or nothing is found.

    Returns:
        bool, (len(one),).
    """
    known = frozenset(other.digests)
    return torch.tensor([digest in known for digest in one.digests], dtype=torch.bool)


def open_pictures(
    spec: str | Path, *, size: int | None = None, crop: Crop = "centre", classes: Sequence[str] = ()
) -> PictureSet:
    """Open a set of pictures by what a person wrote.

    Without a size, pictures are taken as they are: they must be square, of one size, and all
    readable, since a score of fewer pictures than there are would be that of another set.  With
    a size they are prepared as for training (those of that size stay as they are), and what
    cannot be read is left out and told.

    Args:
        spec: A folder or ZIP file, an NPZ file with one array uint8 (N, S, S, 3) as
            `kao sample --npz` writes, the folder of a prepared set, "hf:NAME" or "toy".
        size: Side in pixels; None: as they are.
        crop: How they are made square where they are prepared; see `kao.data.pictures.fit`.
        classes: Classes to take; all where empty.

    Raises:
        ConfigError: A source that draws at any size is given none, or as `open_source`.
        DataError: There are no such pictures, they are not square or of several sizes, one cannot
            be read, or an array is none of pictures.
        MissingExtraError: A package for this kind of source is not installed.
        OutputError: The prepared set cannot be written.
    """
    name, path = str(spec), Path(spec).expanduser()
    drawn = name.partition(":")[0] in SOURCES
    if not drawn and path.is_file() and path.suffix.lower() == ".npz":
        return _of_size(_array(path, name), size)
    if not drawn and (path / MANIFEST).is_file():
        return _of_size(of_prepared(PreparedSet.open(path), name), size)
    if size is None:
        if drawn:
            raise ConfigError(f"{name} has no size of its own: give one, as in --size 32.")
        return _as_they_are(FolderSource(path, classes=classes), name)
    prepared = prepare(open_source(name, size=size, classes=classes), size=size, crop=crop)
    return of_prepared(prepared, name)


def of_prepared(prepared: PreparedSet, name: str) -> PictureSet:
    """A prepared set; its pictures stay on the disk until they are looked at.

    Args:
        prepared: From `kao.data.prepare`.
        name: What a person called it.
    """
    shape = prepared.images.shape
    # A private map, for torch takes no memory that must not be written.
    pixels = torch.from_file(
        str(prepared.path / IMAGES), shared=False, size=prepared.images.size, dtype=torch.uint8
    )
    audit = prepared.audit
    notes = []
    if audit.skipped:
        notes.append(
            f"Of {name}, {len(audit.skipped):,} of {len(audit.skipped) + audit.count:,} pictures "
            f"could not be read and are left out; the first: {audit.skipped[0]}"
        )
    return PictureSet.of(
        name,
        pixels.view(shape),
        keys=prepared.keys,
        labels=None if prepared.labels is None else torch.from_numpy(prepared.labels),
        classes=prepared.classes,
        notes=notes,
    )


def has_statistics(spec: str | Path) -> bool:
    """Whether a file is one of statistics, with mu, rather than of pictures."""
    path = Path(spec).expanduser()
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return "mu.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):  # whoever opens it says what is wrong
        return False


def _fingerprint(digests: Sequence[bytes]) -> str:
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _of_size(pictures: PictureSet, size: int | None) -> PictureSet:
    if size is not None and pictures.size != size:
        raise DataError(
            f"{pictures.name} holds pictures of {pictures.size} x {pictures.size} pixels, and "
            f"{size} x {size} were expected: give a folder, which can be resized, or pictures of "
            f"that size."
        )
    return pictures


def _array(path: Path, name: str) -> PictureSet:
    """The one array of pictures in an NPZ file."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    # A file that was cut fails in the ways of zipfile, zlib and NumPy.
    except Exception as error:
        raise DataError(
            f"{name} cannot be read as NPZ ({type(error).__name__}: {error}): copy it again, or "
            f"write it with `kao sample --npz`."
        ) from error
    found = [a for a in arrays.values() if a.dtype == np.uint8 and a.ndim == 4 and a.shape[3] == 3]
    if len(found) != 1 or found[0].shape[1] != found[0].shape[2] or len(found[0]) == 0:
        met = ", ".join(f"{key} {a.dtype} {a.shape}" for key, a in arrays.items()) or "nothing"
        raise DataError(
            f"{name} holds {met}; expected one array of square pictures, uint8 (N, S, S, 3), as "
            f"`kao sample --npz` writes."
        )
    return PictureSet.of(name, torch.from_numpy(found[0]).permute(0, 3, 1, 2))


def _as_they_are(source: FolderSource, name: str) -> PictureSet:
    """All pictures of a folder or an archive, without resampling."""
    items = _items(source)
    first = next(items)
    side = first.image.shape[-1]
    images = torch.empty(len(source), 3, side, side, dtype=torch.uint8)
    keys, labels, jpegs = [], [], 0
    for index, item in enumerate(itertools.chain([first], items)):
        _check_size(item, first, name)
        images[index] = item.image
        keys.append(item.key)
        labels.append(-1 if item.label is None else item.label)
        jpegs += (item.encoding or "").startswith("JPEG")
    notes = list(source.notes)
    if jpegs:
        notes.append(
            f"{jpegs:,} of {len(images):,} pictures of {name} are JPEG files: compression changes "
            f"what feature networks see and so the FID, for the worse or, beside real pictures "
            f"that are JPEG too, for the better (Parmar et al. 2022); save samples as PNG."
        )
    return PictureSet.of(
        name,
        images,
        keys=keys,
        labels=torch.tensor(labels) if source.classes else None,
        classes=source.classes,
        notes=notes,
    )


def _items(source: ImageSource) -> Iterator[Item]:
    """All pictures of a source in order, decoded by several threads."""
    step = 16 * usable_cores()
    with ThreadPoolExecutor(min(usable_cores(), 16)) as pool:
        for start in range(0, len(source), step):
            yield from pool.map(source.__getitem__, range(start, min(start + step, len(source))))


def _check_size(item: Item, first: Item, name: str) -> None:
    (_, height, width), side = item.image.shape, first.image.shape[-1]
    if height != width:
        raise DataError(
            f"{item.key} of {name} is {width} x {height} pixels, not square: give --size, at which "
            f"all are cut and resized, or use `kao prepare`."
        )
    if width != side:
        raise DataError(
            f"{name} holds pictures of different sizes ({first.key} is {side} x {side}, "
            f"{item.key} is {width} x {width}): give --size, at which all are resized, or use "
            f"`kao prepare`."
        )


def class_counts(pictures: PictureSet) -> Counter[str]:
    """How many pictures each class has, without those that have none."""
    labels = [] if pictures.labels is None else pictures.labels.tolist()
    return Counter(pictures.classes[label] for label in labels if label >= 0)
