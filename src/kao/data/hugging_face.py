"""Pictures in a data set of the Hugging Face hub, or in one saved on disk, through `datasets`."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kao.data import pictures
from kao.data.item import Item
from kao.data.layout import TRAIN
from kao.data.names import listed, picked
from kao.errors import DataError, MissingExtraError, near_miss
from kao.files import at_home

_CAPTION_COLUMNS = ("text", "caption")
_SAVED = ("state.json", "dataset_dict.json")  # what save_to_disk leaves


class HuggingFaceSource:
    """One split of a Hugging Face data set, as an `ImageSource`.

    Columns are found by what they are: the first image column, the first column of class
    labels, and a column of strings called "text" or "caption".  Keys are row numbers.

    Args:
        name: On the hub ("owner/name"), or a path: a folder written by `save_to_disk`, or one of
            parquet files or pictures that `load_dataset` reads.
        classes: Classes to take, in any order; all where empty.
        split: Which one; by default "train", or the only one that there is.

    Raises:
        MissingExtraError: `datasets` is not installed.
        DataError: The data set is missing, cannot be reached, or lacks pictures, the split or a
            class that was asked for.
    """

    def __init__(self, name: str, *, classes: Sequence[str] = (), split: str | None = None):
        self._name, self._split = name, split
        data, self._image, left_out = _opened(name, split)
        self._label = _first(data.features, "ClassLabel")
        self._caption = next(
            (
                column
                for column in _CAPTION_COLUMNS
                if getattr(data.features.get(column), "dtype", None) in ("string", "large_string")
            ),
            None,
        )
        known = tuple(data.features[self._label].names) if self._label else ()
        self._classes = picked(known, classes, of=f"hf:{name}")
        # The data set's class indices -> those of this source.
        self._renamed = {known.index(one): number for number, one in enumerate(self._classes)}
        self._rows = self._chosen_rows(data, filtered=bool(classes))
        if len(self._rows) < 2:
            raise DataError(
                f"hf:{name} holds {len(self._rows)} pictures to take; expected two or more."
            )
        columns = [column for column in (self._image, self._label, self._caption) if column]
        self._notes = [*left_out, *self._passed_over(data, columns)]
        self._data = data.select_columns(columns)
        # The package gives its own digest of files and transformations no public name.
        decides = (data._fingerprint, split, self._classes, len(self._rows), columns)
        self._fingerprint = hashlib.sha256(repr(decides).encode()).hexdigest()

    def __repr__(self) -> str:
        split = "" if self._split is None else f", split={self._split!r}"
        return f"HuggingFaceSource({self._name!r}, classes={self._classes!r}{split})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the digest that `datasets` keeps of the data, the columns and classes."""
        return self._fingerprint

    @property
    def classes(self) -> Sequence[str]:
        """Class names in index order; empty if there are no labels."""
        return self._classes

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Item:
        """Read and decode one picture.

        Raises:
            DataError: It cannot be read or decoded; the message names it and says why.
            IndexError: The index is outside 0 .. len - 1, which also ends a plain `for` loop.
        """
        if not 0 <= index < len(self._rows):
            raise IndexError(f"picture {index} of a set of {len(self._rows)}")
        number = self._rows[index]
        row = self._data[number]
        key = f"{number:08d}"
        image, encoding = pictures.decode(_bytes(row[self._image], key), key)
        label = self._renamed.get(row[self._label]) if self._label else None
        caption = row[self._caption] or None if self._caption else None
        return Item(image, key, label, caption, encoding)

    @property
    def notes(self) -> Sequence[str]:
        """What of the data set is not taken, a sentence each."""
        return self._notes

    def _passed_over(self, data: Any, columns: Sequence[str]) -> list[str]:
        notes = []
        if others := [name for name in data.features if name not in columns]:
            notes.append(f"passed over columns that are not read: {listed(others)}")
        if self._label and len(self._rows) == len(data):
            unknown = sum(label not in self._renamed for label in data[self._label])
            if unknown:
                notes.append(f"{unknown:,} of {len(data):,} pictures have no class")
        return notes

    def _chosen_rows(self, data: Any, *, filtered: bool) -> Sequence[int]:
        if not filtered:
            return range(len(data))
        return [row for row, label in enumerate(data[self._label]) if label in self._renamed]


def _opened(name: str, split: str | None) -> tuple[Any, str, Sequence[str]]:
    """The split with its pictures left encoded, the name of their column, and notes."""
    try:
        import datasets
    except ImportError:
        raise MissingExtraError(
            "datasets", extra="hf", purpose="read data sets of Hugging Face"
        ) from None

    path, left_out = at_home(name), list[str]()
    try:
        if any((path / saved).is_file() for saved in _SAVED):
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path) if path.exists() else name)
    # Each version of the package, and of the three below it, has errors of its own.
    except Exception as error:
        raise DataError(
            f"The data set hf:{name} cannot be opened ({_first_line(error)}): check the name, "
            f"the connection to huggingface.co, and whether it asks for `hf auth login`."
        ) from error

    if isinstance(found, datasets.DatasetDict):
        splits = list(found)
        train = next((one for one in splits if one.lower() in TRAIN), "train")
        chosen = split or (splits[0] if len(splits) == 1 else train)
        if chosen not in splits:
            raise DataError(
                f"hf:{name} has no split {chosen!r}{near_miss(chosen, splits)}: "
                f"its splits are {listed(splits)}."
            )
        if others := [f"{one} ({len(found[one]):,} rows)" for one in splits if one != chosen]:
            left_out.append(f"took the split {chosen} and left out {listed(others, 5)}")
        found = found[chosen]
    elif split is not None:
        raise DataError(f"hf:{name} is not divided into splits: leave out {split!r}.")
    column = _first(found.features, "Image")
    if column is None:
        raise DataError(
            f"hf:{name} has no column of pictures: expected one of type Image, "
            f"met {listed(list(found.features))}."
        )
    return found.cast_column(column, datasets.Image(decode=False)), column, left_out


def _first(features: Any, kind: str) -> str | None:
    """The first column whose feature is of that class of `datasets`."""
    return next((name for name, one in features.items() if type(one).__name__ == kind), None)


def _bytes(stored: dict[str, Any] | None, key: str) -> bytes:
    """The file in a cell, which holds its bytes or its path."""
    if stored and stored.get("bytes"):
        return bytes(stored["bytes"])
    if not stored or not stored.get("path"):
        raise DataError(f"Row {key} has no picture: remove the row.")
    try:
        return Path(stored["path"]).read_bytes()
    except OSError as error:
        raise DataError(
            f"Row {key}: {stored['path']} cannot be read ({error.strerror}): "
            f"check that it is still there."
        ) from error


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
