"""Reading sets of pictures: folders, archives, arrays, sources and prepared sets."""

import itertools
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from kao.data.audit import Audit
from kao.data.folders import FolderSource
from kao.data.item import ImageSource, Item
from kao.data.pictures import Crop
from kao.data.prepare import prepare
from kao.data.prepared import IMAGES, MANIFEST, PreparedSet
from kao.data.sources import SOURCES, open_source
from kao.errors import ConfigError, DataError
from kao.evaluation.pictures import PictureSet
from kao.files import at_home
from kao.machine import usable_cores


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
    name, path = str(spec), at_home(spec)
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
    if audit.enlarged:
        notes.append(
            f"Of {name}, {audit.enlarged:,} of {audit.count:,} pictures were smaller than "
            f"{audit.size} pixels and are enlarged, so they are blurred."
        )
    found = PictureSet.of(
        name,
        pixels.view(shape),
        keys=prepared.keys,
        labels=None if prepared.labels is None else torch.from_numpy(prepared.labels),
        classes=prepared.classes,
        notes=notes,
    )
    return replace(found, brought=_brought(audit), enlarged=audit.enlarged)


def _brought(audit: Audit) -> str:
    """How prepared pictures came to their size; "" where they had it."""
    (narrow, _, wide), (low, _, high) = audit.width, audit.height
    if {narrow, wide, low, high} == {audit.size}:
        return ""
    cut = {"centre": "cut at the centre and ", "pad": "padded and ", "none": ""}[audit.crop]
    sides = [f"{a}" if a == b else f"{a}..{b}" for a, b in ((narrow, wide), (low, high))]
    return f"{cut if audit.not_square else ''}resized from {' x '.join(sides)} pixels"


def has_statistics(spec: str | Path) -> bool:
    """Whether a file is one of statistics, with mu, rather than of pictures."""
    path = at_home(spec)
    if path.suffix.lower() != ".npz" or not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return "mu.npy" in file.namelist()
    except (OSError, zipfile.BadZipFile):  # whoever opens it says what is wrong
        return False


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
        # NumPy takes what it does not know for a pickle, and its words tell how to run that.
        why = "it is damaged" if zipfile.is_zipfile(path) else "it is none, or was cut short"
        raise DataError(
            f"{name} cannot be read as NPZ ({why}): copy it again, write drawn pictures with `kao "
            f"sample --npz`, or a reference with `kao evaluate --save-reference`."
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
    items = _items(source, name)
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
            f"what feature networks see and so any score, for the worse or, beside real pictures "
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


def _items(source: ImageSource, name: str) -> Iterator[Item]:
    """All pictures of a source in order, decoded by several threads.

    Raises:
        DataError: One cannot be read, after all others were looked at.
    """

    def read(index: int) -> Item | DataError:
        try:
            return source[index]
        except DataError as error:
            return error

    step, bad = 16 * usable_cores(), list[DataError]()
    with ThreadPoolExecutor(min(usable_cores(), 16)) as pool:
        for start in range(0, len(source), step):
            for item in pool.map(read, range(start, min(start + step, len(source)))):
                if isinstance(item, DataError):
                    bad.append(item)
                elif not bad:
                    yield item
    if bad:  # each names the file below the place that was named
        more = f"{len(bad):,} of {len(source):,} pictures cannot be read; the first: "
        raise DataError(f"Of {name}, {more if len(bad) > 1 else ''}{bad[0]}") from bad[0]


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
