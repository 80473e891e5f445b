"""What was met while a set of pictures was prepared: sizes, formats, duplicates, what was skipped.

`Tally` takes the facts of one picture after the other in a few hundred bytes each; `Audit` is
what remains, small enough to read.
"""

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from kao.data.duplicates import near_duplicates, thumbnail
from kao.data.item import Item
from kao.data.pictures import Crop

_SIDES = (32, 64, 128, 256, 512, 1024)
_EXAMPLES, _NAMES = 20, 6
_CHAIN = 10  # a group of more pictures, and of more than one in so many, is none of duplicates


@dataclass(frozen=True)
class Duplicates:
    """Groups of pictures that are the same, or nearly.

    Attributes:
        groups: How many there are.
        extra: How many pictures would go if one of each group stayed.
        examples: Names of the members of the largest groups, at most 20 groups of 6 names.
    """

    groups: int
    extra: int
    examples: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Audit:
    """What a prepared set is made of.

    Attributes:
        count: Pictures in the set.
        size: Their side in pixels.
        crop: How they were made square.
        skipped: Why each picture that was left out was left out, with its name.
        classes: Class name -> pictures.
        captions: Pictures with a caption.
        width, height: Smallest, median and largest original width and height in pixels.
        sides: Bucket of the original shorter side ("64-127") -> pictures; empty buckets too.
        encodings: Format and colour mode ("JPEG RGB") -> pictures; "drawn" for toy faces.
        enlarged: Pictures that had to be enlarged, and so are blurred.
        not_square: Pictures that were cropped or padded.
        exact: Pictures with the same pixels once prepared.
        near: Pictures that look the same or are mirror images, see `duplicates`; each exact group
            counts once here, and chains of many that are merely alike do not.
        repeated: Pictures that have a duplicate in the set, exact or near.
        notes: What the source had to say.
    """

    count: int
    size: int
    crop: Crop
    skipped: tuple[str, ...]
    classes: dict[str, int]
    captions: int
    width: tuple[int, int, int]
    height: tuple[int, int, int]
    sides: dict[str, int]
    encodings: dict[str, int]
    enlarged: int
    not_square: int
    exact: Duplicates
    near: Duplicates
    repeated: int
    notes: tuple[str, ...]

    def to_json(self) -> str:
        """As a JSON object with the names of the attributes."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: The text does not come from `to_json`.
        """
        fields: dict[str, Any] = json.loads(text)
        for name in ("exact", "near"):
            groups = fields[name]
            examples = tuple(tuple(group) for group in groups["examples"])
            fields[name] = Duplicates(groups["groups"], groups["extra"], examples)
        for name in ("skipped", "notes", "width", "height"):
            fields[name] = tuple(fields[name])
        return cls(**fields)

    def lines(self) -> list[str]:
        """The audit for a person: what is always of interest, then what is wrong."""
        low, middle, high = self.width
        lines = [
            f"{self.count:,} pictures of {self.size} x {self.size} pixels",
            f"originals {low} to {high} pixels wide (median {middle}); shorter side: "
            + _counts({side: n for side, n in self.sides.items() if n}),
            f"stored as {_counts(self.encodings)}",
        ]
        if self.classes:
            lines.append(f"classes: {_counts(self.classes)}")
        if self.captions:
            lines.append(f"{self.captions:,} with a caption")
        if self.not_square:
            how = "padded with white" if self.crop == "pad" else "cropped to their centre"
            lines.append(f"{self.not_square:,} were not square and were {how}")
        if self.enlarged:
            lines.append(
                f"{self.enlarged:,} were smaller than {self.size} pixels: enlarged, blurred"
            )
        for found, what in ((self.exact, "exact"), (self.near, "near")):
            if found.groups:
                lines.append(
                    f"{found.extra:,} {what} duplicates in {found.groups:,} groups, "
                    f"such as {', '.join(found.examples[0])}"
                )
        if self.repeated:
            lines.append(
                f"{self.repeated:,} pictures ({100 * self.repeated / self.count:.3g} %) have a "
                f"duplicate, mirror images included"
            )
        if self.skipped:
            more = f" (and {len(self.skipped) - 3:,} more)" if len(self.skipped) > 3 else ""
            lines.append(f"{len(self.skipped):,} skipped: {' '.join(self.skipped[:3])}{more}")
        return [*lines, *self.notes]


class Facts(NamedTuple):
    """What the audit wants to know of one picture.

    Attributes:
        width, height: Of the original, in pixels.
        encoding: How it was stored.
        digest: 64 bits of BLAKE2b of the prepared pixels.
        thumbnail: 216 bytes, see `duplicates.thumbnail`.
    """

    width: int
    height: int
    encoding: str
    digest: int
    thumbnail: bytes


def examine(item: Item, prepared: NDArray[np.uint8]) -> Facts:
    """Facts about a picture; safe to call from any thread.

    Args:
        item: The original.
        prepared: uint8, (3, S, S), C-contiguous: what became of it.
    """
    _, height, width = item.image.shape
    digest = hashlib.blake2b(prepared.data, digest_size=8).digest()
    return Facts(
        width,
        height,
        item.encoding or "drawn",
        int.from_bytes(digest, "little"),
        thumbnail(prepared).tobytes(),
    )


class Tally:
    """Adds up facts, in the order of the prepared pictures."""

    def __init__(self) -> None:
        self._sides = array("I")
        self._digests = array("Q")
        self._thumbnails = bytearray()
        self._encodings: Counter[str] = Counter()

    def add(self, facts: Facts) -> None:
        """Take one picture in."""
        self._sides.extend((facts.width, facts.height))
        self._digests.append(facts.digest)
        self._thumbnails += facts.thumbnail
        self._encodings[facts.encoding] += 1

    def audit(
        self,
        *,
        keys: Sequence[str],
        classes: dict[str, int],
        captions: int,
        size: int,
        crop: Crop,
        skipped: Sequence[str],
        notes: Sequence[str],
    ) -> tuple[Audit, NDArray[np.int64]]:
        """Sum up.

        Args:
            keys: Names of the pictures, in the order in which they were added.
            classes: Class name -> pictures.
            captions: Pictures with a caption.
            size: Side of the prepared pictures.
            crop: How they were made square.
            skipped: Why pictures were left out.
            notes: What the source had to say.

        Returns:
            The audit, and of each picture the first of its duplicates, exact or near, int64, (N,).
        """
        exact, near, groups = self._duplicates()
        width, height = np.array(self._sides, np.int64).reshape(-1, 2).T
        shorter = np.minimum(width, height)
        kept = np.maximum(width, height) if crop == "pad" else shorter
        audit = Audit(
            count=len(keys),
            size=size,
            crop=crop,
            skipped=tuple(skipped),
            classes=classes,
            captions=captions,
            width=_spread(width),
            height=_spread(height),
            sides=_histogram(shorter),
            encodings=dict(self._encodings.most_common()),
            enlarged=int((kept < size).sum()),
            not_square=int((width != height).sum()),
            exact=_named(exact, keys),
            near=_named(near, keys),
            repeated=len(repeated(groups)),
            notes=tuple(notes),
        )
        return audit, groups

    def _duplicates(self) -> tuple[list[list[int]], list[list[int]], NDArray[np.int64]]:
        """Groups of equal pixels, of near duplicates among the first of each, and both joined."""
        digests = np.array(self._digests, np.uint64)
        order = np.argsort(digests, kind="stable")
        starts = np.flatnonzero(np.diff(digests[order], prepend=~digests[order[:1]]) != 0)
        exact = [group.tolist() for group in np.split(order, starts[1:]) if len(group) > 1]
        exact.sort(key=lambda group: (-len(group), group))

        different = np.sort(order[starts])
        thumbnails = np.frombuffer(self._thumbnails, np.uint8).reshape(-1, 3, 8, 9)
        # Where much of every picture is plain, as of letters, pictures that are merely alike are
        # linked one by one into a group of half the set.
        most = max(_CHAIN, len(digests) // _CHAIN)
        found = near_duplicates(thumbnails[different])
        near = [different[group].tolist() for group in found if len(group) <= most]
        first = np.arange(len(digests))
        for group in near:
            first[group] = group[0]
        for group in exact:
            first[group] = first[group[0]]
        return exact, near, first


def repeated(groups: NDArray[np.int64]) -> list[int]:
    """Indices of the pictures that share their group with another, ascending.

    Args:
        groups: int64, (N,), see `PreparedSet.groups`.
    """
    return np.flatnonzero(np.bincount(groups, minlength=len(groups))[groups] > 1).tolist()


def contact_sheet(
    images: NDArray[np.uint8], *, marked: Collection[int] = (), count: int = 64, seed: int = 0
) -> Image.Image:
    """A sheet of pictures drawn by lot, in the order of the set.

    Args:
        images: uint8, (N, 3, S, S).
        marked: Indices that get a red frame.
        count: Pictures to show; all where there are fewer.
        seed: Of the lot.

    Returns:
        About as wide as high; pictures keep their size up to 128 pixels.
    """
    count = min(count, len(images))
    chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    columns = int(np.ceil(np.sqrt(count)))
    side, gap = min(images.shape[-1], 128), 4
    step = side + gap
    sheet = Image.new("RGB", (gap + columns * step, gap + -(-count // columns) * step), "white")
    draw = ImageDraw.Draw(sheet)
    among = frozenset(marked)
    for place, index in enumerate(chosen.tolist()):
        left, top = gap + place % columns * step, gap + place // columns * step
        picture = Image.fromarray(np.ascontiguousarray(images[index].transpose(1, 2, 0)))
        sheet.paste(picture.resize((side, side), Image.Resampling.BICUBIC), (left, top))
        if index in among:
            draw.rectangle((left - 2, top - 2, left + side + 1, top + side + 1), None, "red", 2)
    return sheet


def _counts(counted: dict[str, int]) -> str:
    return ", ".join(f"{name} {n:,}" for name, n in counted.items())


def _spread(values: NDArray[np.int64]) -> tuple[int, int, int]:
    return int(values.min()), int(np.median(values)), int(values.max())


def _histogram(values: NDArray[np.int64]) -> dict[str, int]:
    names = [f"below {_SIDES[0]}"]
    names += [f"{low}-{high - 1}" for low, high in pairwise(_SIDES)]
    names += [f"{_SIDES[-1]} and more"]
    counts = np.bincount(np.digitize(values, _SIDES), minlength=len(names))
    return dict(zip(names, counts.tolist(), strict=True))


def _named(groups: Sequence[Sequence[int]], keys: Sequence[str]) -> Duplicates:
    return Duplicates(
        groups=len(groups),
        extra=sum(map(len, groups)) - len(groups),
        examples=tuple(
            tuple(keys[index] for index in group[:_NAMES]) for group in groups[:_EXAMPLES]
        ),
    )
