"""From what a person writes to a set of pictures.

faces/  faces.zip  faces.zip/train    a folder, an archive, a folder in an archive
hf:owner/name  hf:path/to/saved       a Hugging Face data set, its split "train"
hf:owner/name#test                    another split of it
toy  toy:5000                         drawn faces
"""

from collections.abc import Callable, Mapping, Sequence

from kao.data.folders import FolderSource
from kao.data.hugging_face import HuggingFaceSource
from kao.data.item import ImageSource
from kao.errors import ConfigError

TOY_COUNT = 10_000
"""Faces that plain "toy" means."""

_DIGITS = 9  # of a number of faces

Opener = Callable[[str, int, Sequence[str]], ImageSource]
"""Takes what follows the prefix, the size to draw at, and the classes to take."""


def _toy(count: str, size: int, classes: Sequence[str]) -> ImageSource:
    # Drawing code is of no use to those who bring pictures.
    from kao.data.toy_faces import ToyFaces

    digits = count.replace("_", "")
    if count and not (digits.isascii() and digits.isdecimal()):
        raise ConfigError(f"toy:{count} is not understood: write toy, or a number as in toy:5000.")
    if len(digits) > _DIGITS:
        raise ConfigError(f"toy:{count} is more faces than can be drawn: at most {_DIGITS} digits.")
    return ToyFaces(int(digits) if count else TOY_COUNT, size=size, classes=classes)


def _hugging_face(name: str, size: int, classes: Sequence[str]) -> ImageSource:
    # The last "#" counts, so that a path which has one can be spelled: hf:a#b#train.
    head, mark, split = name.rpartition("#")
    if not mark:
        head, split = name, ""
    if not head or (mark and not split):
        raise ConfigError(
            f'"hf:{name}" names no data set: write hf:owner/name or hf:path, and #split after it '
            f"for another split than train."
        )
    return HuggingFaceSource(head, classes=classes, split=split or None)


SOURCES: Mapping[str, Opener] = {
    "hf": _hugging_face,
    "toy": _toy,
}


def open_source(spec: str, *, size: int, classes: Sequence[str] = ()) -> ImageSource:
    """Open a set of pictures by what a person wrote.

    Args:
        spec: A path, or a prefix of `SOURCES` with or without ":" and more.  A folder that is
            called as a prefix is written "./toy".
        size: Side in pixels at which sources that draw do so; the others ignore it.
        classes: Classes to take, in any order; all where empty.

    Raises:
        ConfigError: The part after the prefix is not understood, or the spec is empty.
        DataError: There are no such pictures or classes.
        MissingExtraError: A package for this kind of source is not installed.
    """
    if not spec.strip():
        raise ConfigError(
            "No pictures were named: give a folder, a ZIP file, hf:owner/name, or toy."
        )
    prefix, _, rest = spec.partition(":")
    if prefix in SOURCES:
        return SOURCES[prefix](rest, size, classes)
    return FolderSource(spec, classes=classes)
