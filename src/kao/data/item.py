"""One picture and what is known about it, and the interface of every set of pictures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor


@dataclass(frozen=True)
class Item:
    """One picture and what is known about it.

    Attributes:
        image: uint8, (3, H, W), RGB, 0..255.
        key: Name, unique and stable across runs: "cat/00123.png".
        label: Class index, or None.
        caption: Text, or None.
        encoding: How the picture was stored, as "JPEG RGB"; None for one that was drawn.
    """

    image: Tensor
    key: str
    label: int | None = None
    caption: str | None = None
    encoding: str | None = None


class ImageSource(Protocol):
    """A finite, indexable set of pictures.  Reads and decodes; never resizes or augments."""

    @property
    def fingerprint(self) -> str:
        """Changes when the content does: part of the key of the prepared-data cache."""

    @property
    def classes(self) -> Sequence[str]:
        """Class names in index order; empty if there are none."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Item:
        """Decode one picture.

        Raises:
            DataError: The picture cannot be decoded; the message names it and says why.
        """


@runtime_checkable
class Noted(Protocol):
    """A source that has something to say about what it read and what it left out."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences for a person, shown with the audit; empty if nothing was odd."""
