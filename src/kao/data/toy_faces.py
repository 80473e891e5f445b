"""Toy faces: an endless set of drawn faces, for tests, demonstrations and pages without a download.

Face number i of set s is the same whenever and wherever it is asked for, at any size from 16 to
256 pixels.  There are cats, dogs, wild animals, people and anime characters, each with a caption
that says what is drawn, so a model that learns from them can be asked for what it has learnt.

    toy.attributes   what a face is: ToyFace, drawn by lot, and its caption
    toy.canvas       shapes, poses and a pen
    toy.features     eyes, mouths, expressions
    toy.markings     patterns of fur
    toy.animals      heads of animals
    toy.people       heads of people and anime characters
    toy.drawing      backgrounds, and a face as a picture
    toy_faces        the set as an ImageSource
"""

from collections.abc import Sequence

from kao.data.item import Item
from kao.data.toy.attributes import CLASSES, ToyFace, toy_face
from kao.data.toy.drawing import check_size, draw
from kao.errors import ConfigError, DataError, near_miss

__all__ = ["CLASSES", "DRAWING", "ToyFace", "ToyFaces", "draw", "toy_face"]

DRAWING = 1
"""Version of the drawing: to be raised with every change that moves a pixel or an attribute."""


class ToyFaces:
    """A finite set of toy faces, as an `ImageSource`.

    Args:
        count: How many; 2 or more.  A longer set begins with the shorter one.
        size: Height and width in pixels, 16..256.
        seed: Names the set; 0 or more.
        classes: Which of `CLASSES` to draw, in any order; all where empty.

    Raises:
        ConfigError: Count, size or seed is out of range.
        DataError: A class that does not exist.
    """

    def __init__(
        self, count: int = 10_000, *, size: int = 64, seed: int = 0, classes: Sequence[str] = ()
    ):
        if count < 2:
            raise ConfigError(
                f"A set of toy faces needs count = 2 or more and got {count}: ask for more faces."
            )
        if seed < 0:
            raise ConfigError(
                f"The seed of a set of toy faces is 0 or more and got {seed}: choose another."
            )
        check_size(size)
        for name in classes:
            if name not in CLASSES:
                raise DataError(_no_such_class(name))
        self._count, self._size, self._seed = count, size, seed
        self._classes = tuple(name for name in CLASSES if name in classes) or CLASSES

    @property
    def fingerprint(self) -> str:
        """Names the pictures: version of the drawing, count, size, seed and classes."""
        return (
            f"toy-faces-{DRAWING}-{self._count}-{self._size}-{self._seed}-{'+'.join(self._classes)}"
        )

    @property
    def classes(self) -> Sequence[str]:
        """The classes that are drawn, in index order."""
        return self._classes

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Item:
        """Draw one face.

        Raises:
            IndexError: The index is outside 0..count - 1, which also ends a plain `for` loop.
        """
        if not 0 <= index < self._count:
            raise IndexError(f"toy face {index} of a set of {self._count}")
        face = toy_face(self._seed, index, classes=self._classes)
        return Item(
            image=draw(face, self._size),
            key=f"{face.kind}/{index:06d}.png",
            label=self._classes.index(face.kind),
            caption=face.caption,
        )


def _no_such_class(name: str) -> str:
    hint = near_miss(name, CLASSES)
    return f'Toy faces have no class "{name}"{hint}: choose from {", ".join(CLASSES)}.'
