"""A prepared set: pictures of one size in one raw file, to be read without decoding anything.

manifest.json    what it is and what it was made from; written last
images.u8        uint8, (N, 3, S, S), C order, no header
groups.npy       int64, (N,): of each picture the first of its near duplicates, itself if none
labels.npy       int64, (N,); -1 for a picture without a class.  Only if there are classes
keys.json        N names
captions.json    N captions or nulls.  Only if there are captions
audit.json       see `audit`
contact.png      64 pictures drawn by lot, duplicates in red frames
skipped.txt      a sentence for each picture that was left out.  Only if there are any
"""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kao.data.audit import Audit
from kao.data.pictures import Crop
from kao.errors import DataError

FORMAT = 2
"""Version of the files above: to be raised with every change that makes old sets unreadable."""

MANIFEST = "manifest.json"
IMAGES = "images.u8"
GROUPS = "groups.npy"
LABELS = "labels.npy"
KEYS = "keys.json"
CAPTIONS = "captions.json"
AUDIT = "audit.json"
CONTACT = "contact.png"
SKIPPED = "skipped.txt"

_T = TypeVar("_T")


@dataclass(frozen=True)
class Manifest:
    """What a prepared set is and what it was made from.

    Attributes:
        format: `FORMAT` at the time of writing.
        key: Digest of all that decides the content: source, size, crop, format.
        count: Pictures.
        size: Side in pixels.
        crop: How pictures were made square.
        classes: Class names in index order; empty if there are none.
        captioned: Whether there are captions.
        fingerprint: SHA-256 of images.u8.
        source: What the pictures were read from, for a person.
        source_fingerprint: Of the source.
        created: Time of writing, UTC, ISO 8601.
    """

    format: int
    key: str
    count: int
    size: int
    crop: Crop
    classes: tuple[str, ...]
    captioned: bool
    fingerprint: str
    source: str
    source_fingerprint: str
    created: str

    def to_json(self) -> str:
        """As a JSON object with the names of the attributes."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`; what a later version added is ignored.

        Raises:
            ValueError, TypeError, KeyError: The text does not come from `to_json`.
        """
        told: dict[str, Any] = json.loads(text)
        known = {field.name: told[field.name] for field in fields(cls)}
        return cls(**known | {"classes": tuple(told["classes"])})


@dataclass(frozen=True, eq=False)
class PreparedSet:
    """An opened prepared set.  The pictures stay on disk until they are looked at.

    Attributes:
        path: Its folder.
        manifest: What it is and what it was made from.
        images: uint8, (N, 3, S, S), RGB; a read-only memory map.
        groups: int64, (N,): of each picture the index of the first of its near duplicates, mirror
            images too; its own where it has none.
        labels: int64, (N,), class indices, -1 for none; or None if there are no classes.
        captions: N texts, None for none; or None if there are no captions.
        keys: N names, as the source knows them.
    """

    path: Path
    manifest: Manifest
    images: NDArray[np.uint8]
    groups: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    captions: list[str | None] | None
    keys: list[str]

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """Open the set in a folder, and check that its files are whole.

        Raises:
            DataError: There is none, it is damaged, or it was written by another version.
        """
        path = Path(path)
        if not (path / MANIFEST).is_file():
            raise DataError(
                f"{path} is not a prepared set, for it holds no {MANIFEST}: "
                f"give the folder that `kao prepare` wrote, or run it again."
            )
        manifest = _read(path, MANIFEST, lambda file: Manifest.from_json(_text(file)))
        if manifest.format != FORMAT:
            raise DataError(
                f"{path} is a prepared set of format {manifest.format}; this version of kao reads "
                f"format {FORMAT}: delete the folder and run `kao prepare` again."
            )
        shape = (manifest.count, 3, manifest.size, manifest.size)
        met = _read(path, IMAGES, lambda file: file.stat().st_size)
        if met != math.prod(shape):
            raise _damaged(path, f"{IMAGES} holds {met:,} bytes instead of {math.prod(shape):,}")
        images = _read(path, IMAGES, lambda file: np.memmap(file, np.uint8, "r", shape=shape))
        groups = _read(path, GROUPS, _integers)
        labels = _read(path, LABELS, _integers) if manifest.classes else None
        captions = _read(path, CAPTIONS, _list) if manifest.captioned else None
        keys = _read(path, KEYS, _list)
        columns = ((GROUPS, groups), (LABELS, labels), (CAPTIONS, captions), (KEYS, keys))
        for name, column in columns:
            if column is not None and len(column) != manifest.count:
                raise _damaged(
                    path, f"{name} holds {len(column):,} entries instead of {manifest.count:,}"
                )
        return cls(path, manifest, images, groups, labels, captions, keys)

    def __len__(self) -> int:
        return self.manifest.count

    @property
    def device(self) -> torch.device:
        """Where `take` puts what it takes: the CPU."""
        return torch.device("cpu")

    def take(self, indices: Tensor) -> Tensor:
        """Some of the pictures, copied from disk.

        Args:
            indices: int64, (B,), on the CPU.

        Returns:
            uint8, (B, 3, S, S), on the CPU.
        """
        return torch.from_numpy(np.ascontiguousarray(self.images[indices.numpy()]))

    def __reduce__(self) -> tuple[Callable[[Path], Self], tuple[Path]]:
        # Else a process that is handed the set would get a copy of all pixels.
        return type(self).open, (self.path,)

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.manifest.size

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in index order; empty if there are none."""
        return self.manifest.classes

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the pixels: equal if and only if the pictures are, in the same order."""
        return self.manifest.fingerprint

    @property
    def audit(self) -> Audit:
        """What was met while it was prepared.

        Raises:
            DataError: The file that holds it is damaged.
        """
        return _read(self.path, AUDIT, lambda file: Audit.from_json(_text(file)))


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def _list(file: Path) -> list[Any]:
    return list(json.loads(_text(file)))


def _integers(file: Path) -> NDArray[np.int64]:
    return np.load(file, allow_pickle=False).astype(np.int64, copy=False)


def _read(path: Path, name: str, reader: Callable[[Path], _T]) -> _T:
    try:
        return reader(path / name)
    # A file that was cut or overwritten fails in the ways of its reader.
    except (OSError, ValueError, TypeError, KeyError, EOFError) as error:
        raise _damaged(path, f"{name} cannot be read: {error}") from error


def _damaged(path: Path, why: str) -> DataError:
    return DataError(
        f"The prepared set {path} is damaged ({why}): delete it, or run `kao prepare` again."
    )
