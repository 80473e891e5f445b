"""What a toy face is: its attributes, how they are drawn by lot, and the caption that says them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from kao.data.toy.canvas import Colour, Pose

CLASSES = ("anime", "cat", "dog", "human", "wild")

EXPRESSIONS = ("smiling", "laughing", "neutral", "surprised", "sad", "cross")

COATS: Mapping[str, Colour] = {
    "orange": (240, 150, 66),
    "black": (66, 62, 74),
    "white": (244, 240, 234),
    "grey": (150, 152, 164),
    "cream": (244, 216, 170),
    "brown": (142, 92, 58),
    "golden": (230, 176, 84),
    "red": (206, 84, 52),
    "blond": (240, 204, 104),
    "auburn": (150, 62, 40),
    "pink": (246, 140, 180),
    "blue": (84, 134, 226),
    "purple": (150, 104, 206),
    "green": (86, 176, 122),
    "teal": (60, 176, 184),
    "silver": (206, 212, 226),
}
"""Colours of fur and hair."""

IRISES: Mapping[str, Colour] = {
    "green": (74, 184, 84),
    "blue": (56, 142, 236),
    "amber": (246, 180, 36),
    "brown": (138, 78, 34),
    "grey": (136, 150, 166),
    "purple": (150, 84, 220),
    "red": (222, 52, 62),
    "pink": (240, 96, 168),
}
"""Colours of eyes."""

SKINS: Mapping[str, Colour] = {
    "pale": (255, 226, 204),
    "fair": (250, 208, 174),
    "tan": (226, 172, 126),
    "brown": (176, 118, 80),
    "dark": (122, 78, 54),
}
"""Colours of skin."""

BACKGROUNDS: Mapping[str, Colour] = {
    "blue": (134, 188, 232),
    "green": (150, 206, 146),
    "pink": (246, 178, 196),
    "yellow": (248, 220, 128),
    "purple": (190, 166, 226),
    "teal": (112, 198, 190),
    "red": (224, 112, 102),
    "navy": (62, 82, 134),
    "grey": (186, 192, 200),
}
"""Colours behind the face."""

ACCENTS: Mapping[str, Colour] = {
    "red": (218, 54, 62),
    "blue": (58, 104, 206),
    "green": (60, 152, 92),
    "yellow": (246, 198, 52),
    "pink": (242, 110, 158),
    "purple": (134, 82, 186),
    "white": (242, 242, 246),
}
"""Colours of clothes and accessories."""

BACKDROPS = ("plain", "shaded", "striped", "dotted", "rayed")


@dataclass(frozen=True)
class Species:
    """What the faces of one species may look like."""

    kind: str
    coats: tuple[str, ...]
    eyes: tuple[str, ...]
    styles: tuple[str, ...] = ("",)
    markings: tuple[str, ...] = ("",)
    skins: tuple[str, ...] = ("",)
    accessories: tuple[str, ...] = ("", "", "collar", "bow")


SPECIES: Mapping[str, Species] = {
    "anime character": Species(
        kind="anime",
        coats=("pink", "blue", "purple", "green", "teal", "silver", "blond", "black", "red"),
        eyes=("blue", "green", "purple", "red", "amber", "pink"),
        styles=("long", "bob", "spiky", "twin tails", "ponytail"),
        skins=("pale", "fair", "tan"),
        accessories=("", "", "bow", "cat ears", "headphones", "glasses"),
    ),
    "cat": Species(
        kind="cat",
        coats=("orange", "black", "white", "grey", "cream", "brown"),
        eyes=("green", "blue", "amber"),
        styles=("", "fluffy"),
        markings=("", "tabby", "bicolour", "patched", "masked"),
    ),
    "dog": Species(
        kind="dog",
        coats=("brown", "golden", "black", "white", "grey", "cream"),
        eyes=("brown", "blue", "amber"),
        styles=("floppy-eared", "pointy-eared", "curly"),
        markings=("", "patched", "blazed"),
    ),
    "person": Species(
        kind="human",
        coats=("black", "brown", "blond", "auburn", "grey", "red"),
        eyes=("brown", "blue", "green", "grey"),
        styles=("short", "long", "bob", "curly", "bun"),
        skins=tuple(SKINS),
        accessories=("", "", "glasses", "hat", "beard", "earrings"),
    ),
    "fox": Species(kind="wild", coats=("orange", "red", "white"), eyes=("amber", "green")),
    "lion": Species(kind="wild", coats=("golden", "cream"), eyes=("amber", "brown")),
    "tiger": Species(kind="wild", coats=("orange", "white"), eyes=("amber", "green", "blue")),
    "wolf": Species(kind="wild", coats=("grey", "black", "brown"), eyes=("amber", "blue")),
    "leopard": Species(kind="wild", coats=("golden", "cream"), eyes=("green", "amber")),
    "bear": Species(kind="wild", coats=("brown", "black", "white"), eyes=("brown", "amber")),
    "panda": Species(kind="wild", coats=("white",), eyes=("brown", "blue")),
}

_HAIR = {
    "short": "short {} hair",
    "long": "long {} hair",
    "bob": "{} hair in a bob",
    "curly": "curly {} hair",
    "bun": "{} hair in a bun",
    "spiky": "spiky {} hair",
    "twin tails": "{} hair in twin tails",
    "ponytail": "{} hair in a ponytail",
}

_ACCESSORIES = {
    "collar": "wearing a {} collar",
    "bow": "wearing a {} bow",
    "cat ears": "wearing cat ears",
    "headphones": "wearing {} headphones",
    "glasses": "wearing glasses",
    "hat": "wearing a {} hat",
    "beard": "with a beard",
    "earrings": "wearing {} earrings",
}


@dataclass(frozen=True)
class ToyFace:
    """Everything that is drawn, in words and numbers.

    Attributes:
        kind: The class, one of `CLASSES`.
        species: A key of `SPECIES`.
        coat: Colour of fur or hair, a key of `COATS`.
        skin: Colour of skin, a key of `SKINS`; "" for animals.
        eyes: Colour of both eyes, a key of `IRISES`.
        expression: One of `EXPRESSIONS`.
        style: Hair style, ears or length of the fur, of the species' styles; "" for the usual.
        marking: Markings of the fur; "" for none but the species' own.
        accessory: Something worn; "" for nothing.
        accent: Colour of clothes and accessory, a key of `ACCENTS`.
        backdrop: One of `BACKDROPS`.
        background: Colour behind the face, a key of `BACKGROUNDS`.
        pose: Where the head is and where it looks.
        gaze: Where the eyes look, x then y, each in [-1, 1].
        eye_size: Size of the eyes against the species' usual one.
        eye_gap: Distance of the eyes against the species' usual one.
        tone: Lightness added to the coat, in [-1, 1]; small, so that the colour keeps its name.
    """

    kind: str
    species: str
    coat: str
    skin: str
    eyes: str
    expression: str
    style: str
    marking: str
    accessory: str
    accent: str
    backdrop: str
    background: str
    pose: Pose
    gaze: tuple[float, float]
    eye_size: float
    eye_gap: float
    tone: float

    @property
    def caption(self) -> str:
        """One line: "a smiling orange tabby cat with green eyes, on a striped blue background"."""
        if self.skin:
            hair = _HAIR[self.style].format(self.coat)
            words = ["a", self.expression, self.species]
            having = f"with {self.skin} skin, {hair} and {self.eyes} eyes"
        else:
            words = ["a", self.expression, self.style, self.coat, self.marking, self.species]
            having = f"with {self.eyes} eyes"
        clauses = [" ".join(word for word in (*words, having) if word)]
        if self.accessory:
            clauses.append(_ACCESSORIES[self.accessory].format(self.accent))
        pattern = "" if self.backdrop == "plain" else f"{self.backdrop} "
        clauses.append(f"on a {pattern}{self.background} background")
        return ", ".join(clauses)


def toy_face(seed: int, index: int, *, classes: Sequence[str] = CLASSES) -> ToyFace:
    """Face number `index` of the endless set `seed`: the same at any time, on any machine.

    Args:
        seed: Names the set; 0 or more.
        index: Names the face; 0 or more.
        classes: The classes to draw from, each as likely as the others.
    """
    lots = _Lots(seed, index)
    kind = lots.pick(classes)
    name = lots.pick([name for name, species in SPECIES.items() if species.kind == kind])
    species = SPECIES[name]
    skin = lots.pick(species.skins)
    coat = lots.pick(
        [c for c in species.coats if not skin or _distance(COATS[c], SKINS[skin]) > 80]
    )
    worn = [c for c in ACCENTS if _distance(ACCENTS[c], COATS[coat]) > 90]
    behind = [c for c in BACKGROUNDS if _distance(BACKGROUNDS[c], COATS[coat]) > 90]
    return ToyFace(
        kind=kind,
        species=name,
        coat=coat,
        skin=skin,
        eyes=lots.pick(species.eyes),
        expression=lots.pick((*EXPRESSIONS, "smiling")),
        style=lots.pick(species.styles),
        marking=lots.pick(species.markings),
        accessory=lots.pick(species.accessories),
        accent=lots.pick(worn),
        backdrop=lots.pick(BACKDROPS),
        background=lots.pick(behind),
        pose=Pose(
            tilt=lots.about(0.0, 0.20),
            turn=lots.about(0.0, 0.40),
            nod=lots.about(0.0, 0.16),
            scale=lots.about(1.05 if skin else 0.98, 0.06),
            x=lots.about(0.0, 0.06),
            y=lots.about(0.02, 0.04),
            stretch=lots.about(1.0, 0.06),
        ),
        gaze=(lots.about(0.0, 1.0), lots.about(0.0, 1.0)),
        eye_size=lots.about(1.0, 0.10),
        eye_gap=lots.about(1.0, 0.08),
        tone=lots.about(0.0, 1.0),
    )


class _Lots:
    """Draws by lot, for one face.

    Only the uniform doubles of a Philox stream are used: NumPy promises the stream for ever,
    but not what its distributions make of it.
    """

    def __init__(self, seed: int, index: int):
        self._stream = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, index])))

    def pick(self, options: Sequence[str]) -> str:
        """One of the options, each as likely as the others."""
        return options[int(self._stream.random() * len(options))]

    def about(self, middle: float, spread: float) -> float:
        """A number within `spread` of `middle`, more likely near the middle than at the ends."""
        return middle + spread * (self._stream.random() + self._stream.random() - 1)


def _distance(a: Colour, b: Colour) -> int:
    """The sum of absolute differences of two colours."""
    return sum(abs(p - q) for p, q in zip(a, b, strict=True))
