"""What a score depends on besides the pictures: the protocol it was measured by."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from kao import __version__
from kao.config import Table, leaves
from kao.config.sampling import described

_SHOWN = 12  # hexadecimal digits of a fingerprint that people see


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """How pictures were drawn; the attributes are those of a card."""

    images: int | None = None
    sampling: Table | None = None
    ema: str | None = None
    precision: str | None = None


UNKNOWN = Drawing()
"""Of a folder, nobody knows."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """The protocol of an evaluation.  What is None is not known: of a folder, how it was drawn.

    Attributes:
        subject: What was evaluated: a run, a folder, a file.
        images: Images that the model had seen; None for pictures that came from elsewhere.
        n: Drawn pictures.
        size: Their side in pixels.
        reference: What they were held against, and which part of it.
        reference_hash: Fingerprint of those pictures, or of their statistics.
        reals: How many they were; None of statistics that do not say.
        brought: How those were brought to this size, in words; None: they came in it, or it is not
            known.
        features: Names of the feature spaces.
        resize: How pictures were resized for each of `features`.
        sampling: All of [sampling], as `kao.runs.guiding.sampling_table` has it.
        ema: The average of the weights that drew; "model": the raw ones, which are none.
        precision: In which the model computed.
        seed: Of the noise, and of every random choice.
        metrics: What was asked for; none: not known.
        train_hash: Fingerprint of the pictures that the model was trained on.
        protocol: Its name.
        kao: Version of kao that measured.
    """

    subject: str
    images: int | None = None
    n: int
    size: int
    reference: str
    reference_hash: str
    reals: int | None
    brought: str | None = None
    features: tuple[str, ...]
    resize: tuple[str, ...]
    sampling: Table | None = None
    ema: str | None = None
    precision: str | None = None
    seed: int | None = None
    metrics: tuple[str, ...] = ()
    train_hash: str | None = None
    protocol: str
    kao: str = __version__

    def lines(self) -> list[str]:
        """For people: what was measured, against what, through which eyes, drawn how."""
        seen = "" if self.images is None else f" after {self.images:,} images"
        brought = "" if self.brought is None else f", {self.brought},"
        spaces = zip(self.features, self.resize, strict=True)
        drawn = [
            f"{label} {value}"
            for label, value in (
                ("sampler", "not known" if self.sampling is None else described(self.sampling)),
                ("weights" if self.ema == "model" else "EMA", self.ema),
                ("precision", self.precision),
                ("seed", self.seed),
            )
            if value is not None
        ]
        return [
            f"protocol   {self.protocol} (kao {self.kao})",
            f"drawn      {self.n:,} pictures of {self.size} pixels: {self.subject}{seen}",
            f"reference  {_count(self)}{self.reference}{brought} "
            f"(sha256 {self.reference_hash[:_SHOWN]})",
            f"features   {'; '.join(f'{name}, resized: {how}' for name, how in spaces)}",
            f"drawing    {', '.join(drawn)}",
        ]

    @property
    def question(self) -> str:
        """Six hexadecimal digits that follow from what was asked, and not from who answered when.

        Evaluations of one model that share them are the same one, measured again.
        """
        names = (*_COMPARED, "sampling", "features", "resize", "metrics", "train_hash", "seed")
        asked = [getattr(self, name) for name in names]
        return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:6]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it: an object with the names of the attributes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`, of JSON too; what a later version added is ignored.

        Raises:
            TypeError: Something is missing.
        """
        known = {field.name: told[field.name] for field in fields(cls) if field.name in told}
        lists = {name: tuple(known.get(name, ())) for name in ("features", "resize", "metrics")}
        return cls(**known | lists)

    def to_json(self) -> str:
        """As JSON text."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError: The text does not come from it.
        """
        return cls.from_dict(json.loads(text))


_COMPARED = {
    "n": "drawn pictures",
    "size": "pixels a side",
    "reference_hash": "reference pictures (sha256)",
}
"""What must agree for scores to be ranked, but for [sampling] and the spaces, and its name."""


def differences(a: Card, b: Card) -> list[str]:
    """In what two protocols differ, so that a difference of their scores proves nothing.

    Which model was measured and the noise it drew from are no protocol: subject, images seen,
    training pictures, EMA width, precision and seed may differ.  A feature space that only one of
    them has makes none of the scores of the others doubtful.

    Args:
        a: One.
        b: The other.  Where one of the two does not know how it was drawn, that is no difference.

    Returns:
        A sentence for each difference; none if the scores compare.
    """
    found = []
    for name, words in _COMPARED.items():
        one, other = getattr(a, name), getattr(b, name)
        if one != other:
            found.append(
                f"{words}: {_shown(name, one, a)} for {a.subject}, {_shown(name, other, b)} for "
                f"{b.subject}."
            )
    found += _drawn_otherwise(a, b)
    first, second = (dict(zip(card.features, card.resize, strict=True)) for card in (a, b))
    shared = [space for space in first if space in second]
    if not shared:
        found.append(
            f"feature spaces: {', '.join(first)} for {a.subject}, {', '.join(second)} for "
            f"{b.subject}."
        )
    found += [
        f"resizing for {space}: {first[space]} for {a.subject}, {second[space]} for {b.subject}."
        for space in shared
        if first[space] != second[space]
    ]
    return found


def _drawn_otherwise(a: Card, b: Card) -> list[str]:
    """A sentence with the keys of [sampling] in which two cards differ; none if they agree."""
    if a.sampling is None or b.sampling is None:
        return []
    tables = [leaves(card.sampling or {}, "sampling") for card in (a, b)]
    # A sampler of another kind has other options, so a key may be in one of the two alone.
    keys = [k for k in tables[0] | tables[1] if tables[0].get(k) != tables[1].get(k)]
    if not keys:
        return []
    first, second = (
        ", ".join(f"{key} = {table[key]}" for key in keys if key in table) or "none of it"
        for table in tables
    )
    return [f"drawing: {first} for {a.subject}, {second} for {b.subject}."]


def _shown(name: str, value: Any, card: Card) -> str:
    if name == "reference_hash":
        return f"{_count(card)}{card.reference} ({str(value)[:_SHOWN]})"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _count(card: Card) -> str:
    return "" if card.reals is None else f"{card.reals:,} pictures: "
