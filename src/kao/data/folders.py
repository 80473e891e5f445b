"""Pictures in a folder or a ZIP archive, with classes from folders and captions from tables.

storage    lists and reads files
layout     says what folders mean
tables     reads captions.csv, metadata.csv, metadata.jsonl, dataset.json
pictures   decodes
folders    the set as an ImageSource
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from kao.data import pictures
from kao.data.item import Item
from kao.data.layout import Layout, layout
from kao.data.names import listed, natural, picked
from kao.data.storage import Listing, Storage, find
from kao.data.tables import rows
from kao.errors import DataError
from kao.files import at_home


class FolderSource:
    """The pictures of a folder or a ZIP archive, as an `ImageSource`.

    May be read from many threads at once.  Keys are paths below `path`, in sorted order, so a
    folder and an archive of it are the same set.  Tables of captions are looked for in `path`
    and in the folders that `layout` enters; they name pictures relative to themselves, or to
    the folder that was entered.  Their labels count where folders are not classes; a picture
    without one is of no class.

    Args:
        path: A folder, a ZIP file, or a folder inside a ZIP file ("afhq.zip/train").
        classes: Classes to take, in any order; all where empty.

    Raises:
        DataError: The place is missing, unreadable or no archive, holds fewer than two pictures,
            lacks a class that was asked for, or has a damaged table.
    """

    def __init__(self, path: str | Path, *, classes: Sequence[str] = ()):
        self._path = at_home(path)
        self._storage: Storage = find(self._path)
        listing = self._storage.listing()
        self._check_count(listing.pictures, listing)

        arranged = layout(listing.pictures, wanted=classes)
        keys = [
            name
            for name in listing.pictures
            if name.startswith(arranged.root) and not name.startswith(arranged.left_out)
        ]
        tables = [name for name in listing.tables if arranged.root.startswith(_parent(name))]
        self._notes = [*arranged.notes, *listing.oddities]
        unread = {*listing.tables} - {*tables}
        if elsewhere := natural({t for t in unread if not t.startswith(arranged.left_out)}):
            where = f"{arranged.root} and above it" if arranged.root else "the top folder"
            self._notes.append(
                f"did not read {listed(elsewhere, 3)}: tables are read from {where} alone"
            )
        captions, labels = self._read(tables, arranged.root, listing.pictures)

        if arranged.classes and labels:
            self._notes.append(
                f"{len(labels):,} labels of {', '.join(tables)} are not used: folders are classes"
            )
        named = _class_names(keys, arranged, labels)
        self._classes = picked(natural(set(named.values())), classes, of=str(self._path))
        index = {name: number for number, name in enumerate(self._classes)}
        self._keys = [key for key in keys if not classes or named.get(key) in index]
        self._labels = [index.get(named.get(key, "")) for key in self._keys] if index else None
        self._captions = captions
        if captions:
            self._note_gaps([key for key in self._keys if key not in captions], "caption", tables)
        if named:
            self._note_gaps([key for key in self._keys if key not in named], "class", tables)
        self._check_count(self._keys, listing)
        self._fingerprint = _fingerprint([*self._keys, *tables], listing, self._classes)

    def __repr__(self) -> str:
        return f"FolderSource({str(self._path)!r}, classes={self._classes!r})"

    @property
    def fingerprint(self) -> str:
        """SHA-256 over names, sizes and times (of a ZIP: checksums) of pictures and tables."""
        return self._fingerprint

    @property
    def classes(self) -> Sequence[str]:
        """Class names in natural order, whatever order they were asked for in."""
        return self._classes

    @property
    def notes(self) -> Sequence[str]:
        """What a person might not expect about the place, a sentence each."""
        return self._notes

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, index: int) -> Item:
        """Read and decode one picture.

        Raises:
            DataError: It cannot be read or decoded; the message names it and says why.
            IndexError: The index is outside 0 .. len - 1, which also ends a plain `for` loop.
        """
        if not 0 <= index < len(self._keys):
            raise IndexError(f"picture {index} of a set of {len(self._keys)}")
        key = self._keys[index]
        image, encoding = pictures.decode(self._storage.read(key), key)
        label = None if self._labels is None else self._labels[index]
        return Item(image, key, label, self._captions.get(key), encoding)

    def _read(
        self, tables: Sequence[str], root: str, names: Sequence[str]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Captions and labels by picture; the first table that says something has it."""
        captions: dict[str, str] = {}
        labels: dict[str, str] = {}
        known = frozenset(names) if tables else frozenset()
        for table in tables:
            lost, others = list[str](), set[str]()
            said = 0
            for row in rows(self._storage.read(table), table):
                places = (_parent(table) + row.file, root + row.file)
                name = next((name for name in places if name in known), None)
                others |= row.others
                if name is None:
                    lost.append(row.file or "a row without a name")
                elif row.caption or row.label:
                    said += 1
                    if row.caption:
                        captions.setdefault(name, row.caption)
                    if row.label:
                        labels.setdefault(name, row.label)
            if lost:
                self._notes.append(
                    f"{len(lost):,} rows of {table} name no picture here: {listed(lost, 3)}"
                )
            if others:
                self._notes.append(
                    f"passed over columns of {table} that are not read: {listed(natural(others))}"
                )
            if not said:
                self._notes.append(f"{table} gives no caption and no label to any picture")
        return captions, labels

    def _note_gaps(self, missing: Sequence[str], what: str, tables: Sequence[str]) -> None:
        if missing:
            where = f" in {', '.join(tables)}" if tables else ""
            self._notes.append(
                f"{len(missing):,} of {len(self._keys):,} pictures have no {what}{where}: "
                f"{listed(missing, 3)}"
            )

    def _check_count(self, names: Sequence[str], listing: Listing) -> None:
        if len(names) >= 2:
            return
        met = f"one picture, {names[0]}" if names else "no picture"
        raise DataError(
            f"{self._path} holds {met}; expected two or more of "
            f"{' '.join(sorted(pictures.EXTENSIONS))}"
            + "".join(f"; {oddity}" for oddity in listing.oddities)
            + "."
        )


def _parent(name: str) -> str:
    """The folder of a file, "" or ending in "/"."""
    return name[: name.rfind("/") + 1]


def _class_names(keys: Sequence[str], arranged: Layout, labels: dict[str, str]) -> dict[str, str]:
    """The class of every picture, from folders or else from tables; empty if there are none."""
    if not arranged.classes:
        return {key: labels[key] for key in keys if key in labels}
    named = ((key, arranged.class_of(key)) for key in keys)
    return {key: name for key, name in named if name is not None}


def _fingerprint(names: Iterable[str], listing: Listing, classes: Sequence[str]) -> str:
    digest = hashlib.sha256(repr(classes).encode())
    for name in names:
        # Names that are not UTF-8 arrive with surrogates (PEP 383).
        digest.update(f"{name}\0{listing.stamps[name]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
