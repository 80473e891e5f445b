"""Heads of people and of anime characters."""

from collections.abc import Callable, Mapping

import numpy as np

from kao.data.toy.attributes import ACCENTS, SKINS, ToyFace
from kao.data.toy.canvas import (
    Colour,
    Pen,
    Points,
    blob,
    dark,
    ellipse,
    light,
    mirror,
    mix,
    on_side,
    star,
    stroke,
    symmetric,
)
from kao.data.toy.features import (
    INK,
    SIDES,
    coat_colour,
    draw_blush,
    draw_bow,
    draw_brows,
    draw_eyes,
    draw_glasses,
    draw_lashes,
    draw_mouth,
)

_SHADOW: Colour = (176, 84, 70)
"""What skin is mixed with where it lies in the shade."""

_ROUND_JAW = (-0.56j, 0.40 - 0.46j, 0.58 - 0.06j, 0.55 + 0.32j, 0.34 + 0.64j, 0.76j)
_POINTED_JAW = (-0.50j, 0.42 - 0.40j, 0.60 + 0.02j, 0.56 + 0.34j, 0.28 + 0.66j, 0.80j)

BACK_HAIR: Mapping[str, tuple[complex, ...]] = {
    "short": (-0.80j, 0.46 - 0.70j, 0.70 - 0.30j, 0.68 + 0.06j, 0.40 + 0.20j, 0.2j),
    "bob": (-0.82j, 0.50 - 0.72j, 0.76 - 0.24j, 0.80 + 0.30j, 0.66 + 0.60j, 0.24 + 0.50j, 0.4j),
    "long": (-0.82j, 0.50 - 0.72j, 0.76 - 0.22j, 0.82 + 0.44j, 0.84 + 1.3j, 1.4j),
    "bun": (-0.76j, 0.44 - 0.66j, 0.66 - 0.24j, 0.62 + 0.06j, 0.3 + 0.2j, 0.2j),
    "ponytail": (-0.80j, 0.48 - 0.70j, 0.70 - 0.24j, 0.66 + 0.14j, 0.3 + 0.3j, 0.3j),
    "twin tails": (-0.80j, 0.48 - 0.70j, 0.70 - 0.24j, 0.66 + 0.14j, 0.3 + 0.3j, 0.3j),
    "spiky": (-0.70j, 0.48 - 0.62j, 0.70 - 0.2j, 0.66 + 0.14j, 0.3 + 0.3j, 0.3j),
    "curly": (-0.66j, 0.46 - 0.58j, 0.64 - 0.2j, 0.6 + 0.2j, 0.3 + 0.3j, 0.3j),
}
"""The right half of the hair behind the head, by style, from the crown down."""


_SPIKY_HALF = np.array(
    [
        -1.0j,
        0.12 - 0.80j,
        0.38 - 0.98j,
        0.44 - 0.72j,
        0.78 - 0.76j,
        0.70 - 0.44j,
        0.98 - 0.30j,
        0.78 - 0.08j,
        0.94 + 0.22j,
        0.72 + 0.24j,
        0.74 + 0.52j,
        0.50 + 0.30j,
    ]
)
_SPIKES = np.concatenate([_SPIKY_HALF, mirror(_SPIKY_HALF[::-1])])


def draw_person(pen: Pen, body: Pen, face: ToyFace) -> None:
    """Draw a person's or an anime character's shoulders, head and hair.

    Args:
        pen: Under the head's pose.
        body: Under the shoulders' pose.
        face: Of class human or anime.
    """
    drawn = face.kind == "anime"
    skin, hair = SKINS[face.skin], coat_colour(face)
    line, shadow = dark(skin, 0.5), mix(skin, _SHADOW, 0.3)
    _draw_back_hair(pen, face, hair)
    _draw_shoulders(body, face, shadow)
    head = symmetric(_POINTED_JAW if drawn else _ROUND_JAW)
    for side in SIDES:
        pen.inked(on_side(ellipse(0.60 + 0.14j, 0.10, 0.14), side), shadow, line)
    pen.inked(head, skin, line, width=0.022)
    if face.accessory == "beard":
        _draw_beard(pen, hair)
    if drawn or face.skin in ("pale", "fair"):
        draw_blush(pen, face, drop=0.30 if drawn else 0.24)
    draw_eyes(pen, face, lids=mix(skin, shadow, 0.4), line=INK, rim=0.03 if drawn else 0.022)
    if drawn:
        draw_lashes(pen, face)
    draw_brows(
        pen, face, dark(hair, 0.35), width=0.05 if drawn else 0.065, height=0.07 if drawn else 0.08
    )
    if not drawn:
        nose = stroke([-0.07 + 0.32j, 0.03 + 0.355j, 0.075 + 0.315j], 0.05, taper=0.4)
        pen.fill(nose, mix(skin, line, 0.65), depth=0.5)
    else:
        pen.fill(ellipse(0.40j, 0.022, 0.018), mix(skin, line, 0.6), depth=0.5)
    lips = dark((196, 70, 76), 0.2 if sum(skin) < 400 else 0.1)
    draw_mouth(pen, face, 0.55j, half=0.15 if drawn else 0.21, line=lips, depth=0.42)
    _FRONT_HAIR[face.style](pen, hair)
    _draw_accessory(pen, face, hair)


def _draw_shoulders(body: Pen, face: ToyFace, neck: Colour) -> None:
    shirt = ACCENTS[face.accent]
    body.fill(symmetric([0.4j, 0.20 + 0.42j, 0.22 + 0.9j, 1.0j]), neck)
    body.inked(
        symmetric([0.86j, 0.24 + 0.80j, 0.66 + 0.92j, 0.86 + 1.3j, 1.4j]), shirt, dark(shirt, 0.5)
    )
    body.fill(symmetric([0.70j, 0.20 + 0.72j, 0.16 + 0.90j, 0.94j]), neck)


def _draw_back_hair(pen: Pen, face: ToyFace, hair: Colour) -> None:
    shade, ink = dark(hair, 0.18), dark(hair, 0.5)
    if face.style == "curly":
        pen.inked(star(-0.12j, 0.88, spikes=12, dent=0.12), shade, ink, depth=-0.1)
    if face.style == "spiky":
        pen.inked(_SPIKES, shade, ink, depth=-0.1)
    if face.style == "bun":
        pen.inked(ellipse(-0.80j, 0.25, 0.21), hair, ink, depth=-0.1)
    if face.style == "ponytail":
        tail = blob(
            [0.40 - 0.66j, 0.86 - 0.60j, 0.92 + 0.10j, 0.74 + 0.66j, 0.70 + 0.0j, 0.50 - 0.3j]
        )
        pen.inked(tail, shade, ink, depth=-0.2)
    if face.style == "twin tails":
        for side in SIDES:
            tail = blob([0.54 - 0.42j, 0.90 - 0.36j, 0.98 + 0.30j, 0.80 + 0.84j, 0.66 + 0.2j])
            pen.inked(on_side(tail, side), shade, ink, depth=-0.1)
    pen.inked(symmetric(BACK_HAIR[face.style]), shade, ink, depth=-0.08)


def _shine(pen: Pen, hair: Colour) -> None:
    """A band of light across the crown."""
    band = stroke([-0.40 - 0.47j, -0.18 - 0.58j, 0.10 - 0.60j], 0.09, taper=0.9)
    pen.glaze(band, light(hair, 0.8), opacity=0.55, depth=0.12)


def _front(pen: Pen, hair: Colour, outline: Points) -> None:
    pen.inked(outline, hair, dark(hair, 0.5), depth=0.06, width=0.02)


def _swept(pen: Pen, hair: Colour) -> None:
    """A fringe parted on one side."""
    _front(
        pen,
        hair,
        blob(
            [
                -0.62 + 0.04j,
                -0.70 - 0.34j,
                -0.42 - 0.74j,
                0.06 - 0.82j,
                0.50 - 0.70j,
                0.71 - 0.30j,
                0.62 + 0.04j,
                0.50 - 0.22j,
                0.18 - 0.36j,
                -0.20 - 0.20j,
                -0.48 - 0.18j,
            ]
        ),
    )
    _shine(pen, hair)


def _parted(pen: Pen, hair: Colour) -> None:
    """Hair parted in the middle that frames the face down to the cheeks."""
    for side in SIDES:
        lock = blob(
            [
                -0.02 - 0.80j,
                0.46 - 0.72j,
                0.74 - 0.26j,
                0.76 + 0.36j,
                0.58 + 0.52j,
                0.56 + 0.02j,
                0.34 - 0.24j,
                -0.02 - 0.46j,
            ]
        )
        _front(pen, hair, on_side(lock, side))
    _shine(pen, hair)


def _fringe(pen: Pen, hair: Colour) -> None:
    """A straight fringe with side locks."""
    _front(
        pen,
        hair,
        symmetric(
            [
                -0.82j,
                0.48 - 0.72j,
                0.73 - 0.26j,
                0.74 + 0.34j,
                0.60 + 0.46j,
                0.55 + 0.04j,
                0.48 - 0.16j,
                0.24 - 0.12j,
                -0.14j,
            ]
        ),
    )
    _shine(pen, hair)


def _jagged(pen: Pen, hair: Colour) -> None:
    """A fringe of pointed locks."""
    edge = [
        -0.64 + 0.16j,
        -0.72 - 0.24j,
        -0.46 - 0.70j,
        0.02 - 0.80j,
        0.48 - 0.70j,
        0.72 - 0.24j,
        0.64 + 0.16j,
        0.54 - 0.14j,
        0.40 + 0.02j,
        0.28 - 0.24j,
        0.08 - 0.02j,
        -0.08 - 0.26j,
        -0.26 + 0.02j,
        -0.38 - 0.22j,
        -0.54 - 0.04j,
    ]
    _front(pen, hair, blob(edge))
    _shine(pen, hair)


def _curls(pen: Pen, hair: Colour) -> None:
    """A row of round curls above the brow."""
    for x, y, r in (
        (-0.50, -0.36, 0.22),
        (0.50, -0.36, 0.22),
        (-0.20, -0.50, 0.24),
        (0.22, -0.50, 0.24),
    ):
        _front(pen, hair, star(complex(x, y), r, spikes=6, dent=0.12))
    _shine(pen, hair)


def _combed_back(pen: Pen, hair: Colour) -> None:
    """A high hairline."""
    _front(
        pen,
        hair,
        symmetric([-0.78j, 0.46 - 0.68j, 0.68 - 0.24j, 0.60 + 0.08j, 0.48 - 0.24j, -0.42j]),
    )
    _shine(pen, hair)


_FRONT_HAIR: Mapping[str, Callable[[Pen, Colour], None]] = {
    "short": _swept,
    "long": _parted,
    "bob": _fringe,
    "curly": _curls,
    "bun": _combed_back,
    "spiky": _jagged,
    "twin tails": _fringe,
    "ponytail": _jagged,
}


def _draw_beard(pen: Pen, hair: Colour) -> None:
    beard = symmetric(
        [0.40j, 0.22 + 0.38j, 0.40 + 0.44j, 0.58 + 0.16j, 0.58 + 0.44j, 0.36 + 0.76j, 0.86j]
    )
    pen.inked(beard, dark(hair, 0.1), dark(hair, 0.5), depth=0.1, width=0.02)


def _draw_accessory(pen: Pen, face: ToyFace, hair: Colour) -> None:
    colour = ACCENTS[face.accent]
    ink = dark(colour, 0.5)
    match face.accessory:
        case "glasses":
            draw_glasses(pen, face)
        case "bow":
            draw_bow(pen, 0.46 - 0.62j, colour)
        case "hat":
            dome = symmetric([-0.92j, 0.44 - 0.82j, 0.74 - 0.36j, 0.40 - 0.30j, -0.28j])
            pen.inked(dome, colour, ink, depth=0.02)
            band = stroke([-0.76 - 0.32j, -0.26j, 0.76 - 0.32j], 0.20, taper=0.1)
            pen.inked(band, light(colour, 0.3), ink, depth=0.1)
            pen.inked(star(-0.90j, 0.12, spikes=7, dent=0.15), light(colour, 0.5), ink)
        case "cat ears":
            for side in SIDES:
                outer = blob([0.20 - 0.66j, 0.36 - 0.86j, 0.58 - 1.02j, 0.70 - 0.70j, 0.66 - 0.42j])
                inner = blob([0.34 - 0.66j, 0.44 - 0.80j, 0.56 - 0.90j, 0.61 - 0.70j, 0.58 - 0.54j])
                pen.inked(on_side(outer, side), hair, dark(hair, 0.5), depth=0.05)
                pen.fill(on_side(inner, side), (246, 168, 180), depth=0.05)
        case "headphones":
            band = stroke(
                [-0.74 - 0.05j, -0.58 - 0.66j, -0.90j, 0.58 - 0.66j, 0.74 - 0.05j], 0.11, taper=0.0
            )
            pen.inked(band, colour, ink)
            for side in SIDES:
                pen.inked(on_side(ellipse(0.74 + 0.10j, 0.15, 0.22), side), colour, ink)
        case "earrings":
            for side in SIDES:
                pen.inked(on_side(ellipse(0.66 + 0.36j, 0.075, 0.085), side), colour, ink)
        case _:
            pass
