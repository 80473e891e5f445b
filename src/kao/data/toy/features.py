"""Eyes and mouths of the toy faces, and the expressions that they make."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from kao.data.toy.attributes import COATS, IRISES, ToyFace
from kao.data.toy.canvas import (
    Colour,
    Pen,
    Points,
    blob,
    dark,
    ellipse,
    light,
    on_side,
    stroke,
    symmetric,
)

INK: Colour = (46, 32, 40)
"""Lines, pupils and the inside of shadows."""

FRAME: Colour = (74, 54, 70)
"""Frames of glasses: softer than ink, so that the eyes behind still read at 32 pixels."""

WHITE: Colour = (255, 252, 248)

TONGUE: Colour = (240, 112, 122)

EYE_DEPTH = 0.40
"""How far eyes lie before the head's outline, in half widths of the picture."""

SIDES = (-1, 1)
"""Left and right in the picture."""


@dataclass(frozen=True)
class EyeShape:
    """One eye on the right half of an upright head, in half widths of the picture.

    Attributes:
        x, y: Centre.
        rx, ry: Half width and half height of the opening.
        iris: Radius of the iris against `rx` (and of its height against `ry`); above 1 the
            iris fills the opening and no white is seen.
        pupil: Half width of the pupil against the iris's.
    """

    x: float
    y: float
    rx: float
    ry: float
    iris: float = 1.2
    pupil: float = 0.52


EYES: Mapping[str, EyeShape] = {
    "anime character": EyeShape(0.27, 0.20, 0.185, 0.235, iris=0.86, pupil=0.46),
    "cat": EyeShape(0.31, 0.10, 0.195, 0.205, pupil=0.30),
    "dog": EyeShape(0.28, -0.02, 0.165, 0.175),
    "person": EyeShape(0.255, 0.10, 0.178, 0.155, iris=0.74, pupil=0.44),
    "fox": EyeShape(0.30, 0.06, 0.155, 0.165, pupil=0.34),
    "lion": EyeShape(0.25, -0.02, 0.145, 0.145, pupil=0.46),
    "tiger": EyeShape(0.28, 0.00, 0.155, 0.155, pupil=0.42),
    "wolf": EyeShape(0.27, 0.00, 0.155, 0.145, pupil=0.42),
    "leopard": EyeShape(0.28, 0.00, 0.160, 0.160, pupil=0.42),
    "bear": EyeShape(0.27, -0.02, 0.140, 0.145),
    "panda": EyeShape(0.29, 0.04, 0.145, 0.150),
}


@dataclass(frozen=True)
class Look:
    """What an expression does to a face.

    Attributes:
        upper: Share of the eye's height that the upper lid covers at its middle.
        lower: Share of the eye's height that the lower lid covers.
        slope: Rise of the upper lid (and brow) per unit outwards: positive is cross,
            negative is sad.
        lift: Shift of the brows upwards, in half widths of the picture.
        open: Opening of the mouth: 0 shut, 1 wide.
        bend: Curve of the mouth: 1 smiles, -1 sulks.
    """

    upper: float
    lower: float
    slope: float
    lift: float
    open: float
    bend: float


LOOKS: Mapping[str, Look] = {
    "smiling": Look(upper=0.0, lower=0.0, slope=0.0, lift=0.02, open=0.0, bend=1.0),
    "laughing": Look(upper=0.04, lower=0.24, slope=0.0, lift=0.05, open=1.0, bend=1.0),
    "neutral": Look(upper=0.07, lower=0.0, slope=-0.12, lift=0.0, open=0.0, bend=0.15),
    "surprised": Look(upper=-0.2, lower=-0.2, slope=0.0, lift=0.10, open=0.6, bend=0.0),
    "sad": Look(upper=0.18, lower=0.0, slope=-0.55, lift=0.03, open=0.0, bend=-1.0),
    "cross": Look(upper=0.24, lower=0.06, slope=0.62, lift=-0.05, open=0.0, bend=-0.7),
}


def coat_colour(face: ToyFace) -> Colour:
    """The coat's colour with the face's own lightness."""
    coat = COATS[face.coat]
    return light(coat, 0.14 * face.tone) if face.tone > 0 else dark(coat, -0.14 * face.tone)


def eye_shape(face: ToyFace) -> EyeShape:
    """The eyes of one face: its species' with the face's own size and distance."""
    usual = EYES[face.species]
    size = face.eye_size * (1.1 if face.expression == "surprised" else 1.0)
    return replace(usual, x=usual.x * face.eye_gap, rx=usual.rx * size, ry=usual.ry * size)


def eye_centres(face: ToyFace) -> tuple[tuple[float, float], tuple[float, float]]:
    """Where the eyes are, left in the picture first: (x, y) as shares of the size, in [0, 1]."""
    eye = eye_shape(face)
    middle = ellipse(complex(eye.x, eye.y), 0.0, 0.0)[:1]
    left, right = (face.pose.place(on_side(middle, side), EYE_DEPTH)[0] for side in SIDES)
    return ((left.real + 1) / 2, (left.imag + 1) / 2), ((right.real + 1) / 2, (right.imag + 1) / 2)


def draw_eyes(pen: Pen, face: ToyFace, *, lids: Colour, line: Colour = INK, rim: float) -> None:
    """Draw both eyes with their lids.

    Args:
        pen: Under the head's pose.
        face: Whose eyes.
        lids: Colour of the lids: of the skin or fur around the eye.
        line: Colour of the line around the eye.
        rim: Width of that line, in half widths of the picture.
    """
    eye, look = eye_shape(face), LOOKS[face.expression]
    for side in SIDES:
        _draw_eyeball(pen, face, eye, side=side, line=line, rim=rim)
        _draw_lids(pen, eye, look, side=side, lids=lids, line=line, rim=rim)


def _draw_eyeball(
    pen: Pen, face: ToyFace, eye: EyeShape, *, side: int, line: Colour, rim: float
) -> None:
    iris = IRISES[face.eyes]
    centre = complex(side * eye.x, eye.y)
    pen.fill(ellipse(centre, eye.rx + rim, eye.ry + rim), line, depth=EYE_DEPTH)
    rx, ry = eye.rx * min(eye.iris, 1.0), eye.ry * min(eye.iris, 1.0)
    if eye.iris < 1:
        pen.fill(ellipse(centre, eye.rx, eye.ry), WHITE, depth=EYE_DEPTH)
        centre += complex(face.gaze[0] * 0.6 * (eye.rx - rx), face.gaze[1] * 0.4 * (eye.ry - ry))
    pen.fill(ellipse(centre, rx, ry), dark(iris, 0.35), depth=EYE_DEPTH)
    pen.fill(ellipse(centre + 0.06j * ry, 0.88 * rx, 0.90 * ry), iris, depth=EYE_DEPTH)
    glow = ellipse(centre + 0.52j * ry, 0.56 * rx, 0.36 * ry)
    pen.glaze(glow, light(iris, 0.6), opacity=0.45, depth=EYE_DEPTH)
    # An iris that fills the opening lets only the pupil show where the eye looks.
    pupil = centre + (
        complex(face.gaze[0] * 0.18 * rx, face.gaze[1] * 0.1 * ry) if eye.iris > 1 else 0
    )
    narrow = eye.pupil * (1.25 if face.expression == "surprised" else 1.0)
    pen.fill(ellipse(pupil, rx * narrow, ry * max(narrow, 0.56)), INK, depth=EYE_DEPTH)
    # Light falls from the picture's upper left, in both eyes alike.
    glint = centre - complex(0.36 * rx, 0.40 * ry)
    pen.fill(ellipse(glint, 0.27 * rx, 0.27 * ry), WHITE, depth=EYE_DEPTH)
    pen.fill(
        ellipse(centre + complex(0.36 * rx, 0.42 * ry), 0.12 * rx, 0.12 * ry),
        WHITE,
        depth=EYE_DEPTH,
    )


def _draw_lids(
    pen: Pen, eye: EyeShape, look: Look, *, side: int, lids: Colour, line: Colour, rim: float
) -> None:
    if look.upper > 0:
        level = eye.y - eye.ry + 2 * eye.ry * look.upper
        rise = look.slope * eye.rx
        pen.fill(
            on_side(_cap(eye, rim, level, look.slope, above=True), side), lids, depth=EYE_DEPTH
        )
        edge = stroke(
            [
                complex(eye.x - eye.rx, level + rise),
                complex(eye.x, level),
                complex(eye.x + eye.rx, level - rise),
            ],
            0.05,
        )
        pen.fill(on_side(edge, side), line, depth=EYE_DEPTH)
    if look.lower > 0:
        level = eye.y + eye.ry - 2 * eye.ry * look.lower
        pen.fill(on_side(_cap(eye, rim, level, 0.0, above=False), side), lids, depth=EYE_DEPTH)
        edge = stroke([complex(eye.x - eye.rx, level), complex(eye.x + eye.rx, level)], 0.03)
        pen.fill(on_side(edge, side), line, depth=EYE_DEPTH)


def _cap(eye: EyeShape, rim: float, level: float, slope: float, *, above: bool) -> Points:
    """The part of the right eye, line included, that lies above (or below) its lid."""
    whole = ellipse(complex(eye.x, eye.y), eye.rx + rim + 0.012, eye.ry + rim + 0.012)
    lid = level - slope * (whole.real - eye.x)
    y = whole.imag.clip(max=lid) if above else whole.imag.clip(min=lid)
    return whole.real + 1j * y


def draw_lashes(pen: Pen, face: ToyFace) -> None:
    """Draw the heavy upper lashes of anime eyes, which sink with the lids."""
    eye, look = eye_shape(face), LOOKS[face.expression]
    top = eye.y - eye.ry + 2 * eye.ry * max(look.upper - 0.06, 0.0)
    outer = top + 0.75 * eye.ry * (1 - max(look.upper, 0.0)) - look.slope * eye.rx
    inner = top + 0.50 * eye.ry * (1 - max(look.upper, 0.0)) + look.slope * eye.rx
    lash = stroke(
        [
            complex(eye.x - 0.98 * eye.rx, inner),
            complex(eye.x - 0.50 * eye.rx, top + 0.05 * eye.ry + 0.5 * look.slope * eye.rx),
            complex(eye.x + 0.45 * eye.rx, top + 0.02 * eye.ry - 0.5 * look.slope * eye.rx),
            complex(eye.x + 1.22 * eye.rx, outer),
        ],
        0.085,
        taper=0.7,
    )
    for side in SIDES:
        pen.fill(on_side(lash, side), INK, depth=EYE_DEPTH)


def draw_brows(pen: Pen, face: ToyFace, colour: Colour, *, width: float, height: float) -> None:
    """Draw two brows `height` half widths above the eyes' openings."""
    eye, look = eye_shape(face), LOOKS[face.expression]
    y = eye.y - eye.ry - height - look.lift
    for side in SIDES:
        inner = complex(eye.x - 0.85 * eye.rx, y + 0.9 * look.slope * eye.rx)
        middle = complex(eye.x + 0.1 * eye.rx, y - 0.03)
        outer = complex(eye.x + 1.0 * eye.rx, y - 0.5 * look.slope * eye.rx + 0.02)
        pen.fill(on_side(stroke([inner, middle, outer], width), side), colour, depth=0.36)


def draw_mouth(
    pen: Pen, face: ToyFace, centre: complex, *, half: float, line: Colour, depth: float
) -> None:
    """Draw a person's mouth, `half` half widths of the picture to each side of `centre`."""
    look = LOOKS[face.expression]
    if look.open > 0:
        wide, tall = (half, 0.95 * half) if look.bend > 0 else (0.56 * half, 0.7 * half)
        opening = _open_mouth(centre, wide, tall, look.bend)
        pen.inked(opening, (150, 44, 58), line, depth=depth, width=0.018)
        tongue = ellipse(centre + 0.62j * tall, 0.48 * wide, 0.26 * tall)
        pen.fill(tongue, TONGUE, depth=depth)
        if look.bend > 0:
            teeth = stroke(
                [centre - 0.7 * wide + 0.05j, centre + 0.06j, centre + 0.7 * wide + 0.05j], 0.07
            )
            pen.fill(teeth, WHITE, depth=depth)
        return
    sag = 0.42 * half * look.bend
    ends = half * (0.7 if abs(look.bend) < 0.5 else 1.0)
    lips = stroke(
        [centre - ends - 0.5j * sag, centre + 0.5j * sag, centre + ends - 0.5j * sag], 0.055
    )
    pen.fill(lips, line, depth=depth)


def draw_muzzle_mouth(pen: Pen, face: ToyFace, nose: complex, *, half: float, drop: float) -> None:
    """Draw an animal's mouth: a line down from the nose, then one curve to each side.

    Args:
        pen: Under the head's pose.
        face: Whose mouth.
        nose: The nose's lower end.
        half: Half width of the mouth, in half widths of the picture.
        drop: Length of the line down, likewise.
    """
    look = LOOKS[face.expression]
    depth = 0.5
    fork = nose + 1j * drop
    if look.open > 0:
        wide, tall = (0.72 * half, 1.0 * half) if look.bend > 0 else (0.52 * half, 0.72 * half)
        pen.inked(
            _open_mouth(fork, wide, tall, look.bend), (140, 44, 56), INK, depth=depth, width=0.02
        )
        pen.fill(ellipse(fork + 0.66j * tall, 0.5 * wide, 0.3 * tall), TONGUE, depth=depth)
    pen.fill(stroke([nose - 0.02j, fork], 0.04, taper=0.0), INK, depth=depth)
    if look.open and look.bend <= 0:
        return
    sag = 0.42 * half * look.bend
    for side in SIDES:
        corner = fork + side * half - 1j * max(sag, 0.0) * 0.4 - 1j * min(sag, 0.0) * 1.1
        middle = fork + 0.55 * side * half + 1j * max(sag, 0.0) * 0.9 - 0.02j
        pen.fill(stroke([fork, middle, corner], 0.05, taper=0.3), INK, depth=depth)


def _open_mouth(top: complex, wide: float, tall: float, bend: float) -> Points:
    """A laughing mouth (flat above) where `bend` is positive, a round one elsewhere."""
    if bend > 0:
        return symmetric(
            [
                top + 0.03j,
                top + complex(wide, -0.02),
                top + complex(0.72 * wide, 0.66 * tall),
                top + 1j * tall,
            ]
        )
    return ellipse(top + 0.5j * tall, wide, 0.62 * tall)


def draw_blush(pen: Pen, face: ToyFace, *, drop: float, colour: Colour = (255, 96, 110)) -> None:
    """Lay a soft blush on both cheeks, `drop` half widths below the eyes' centres."""
    eye = eye_shape(face)
    for side in SIDES:
        for size in (1.0, 0.7):
            cheek = ellipse(complex(side * (eye.x + 0.10), eye.y + drop), 0.15 * size, 0.085 * size)
            pen.glaze(cheek, colour, opacity=0.22, depth=0.3)


def draw_glasses(pen: Pen, face: ToyFace) -> None:
    """Put glasses before the eyes."""
    eye = eye_shape(face)
    rx, ry = max(eye.rx + 0.075, 0.2), max(eye.ry + 0.06, 0.18)
    depth = EYE_DEPTH + 0.02
    for side in SIDES:
        around = [complex(eye.x + rx * math.cos(a), eye.y + ry * math.sin(a)) for a in _HOOP]
        pen.fill(on_side(stroke(around, 0.035, taper=0.0), side), FRAME, depth=depth)
        temple = stroke([complex(eye.x + rx, eye.y), complex(0.66, eye.y - 0.05)], 0.04)
        pen.fill(on_side(temple, side), FRAME, depth=depth)
    bridge = [complex(rx - eye.x, eye.y), complex(0, eye.y - 0.05), complex(eye.x - rx, eye.y)]
    pen.fill(stroke(bridge, 0.035, taper=0.0), FRAME, depth=depth)


def draw_bow(pen: Pen, knot: complex, colour: Colour) -> None:
    """Tie a bow whose knot is at `knot`."""
    for side in SIDES:
        loop = blob([0j, 0.26 - 0.17j, 0.30 + 0.0j, 0.26 + 0.15j])
        pen.inked(knot + on_side(loop, side), colour, dark(colour, 0.5), depth=0.2)
    pen.inked(ellipse(knot, 0.075, 0.085), light(colour, 0.2), dark(colour, 0.5), depth=0.22)


_HOOP = tuple(2 * math.pi * i / 8 for i in range(9))
