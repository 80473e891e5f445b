"""Heads of cats, dogs and wild animals."""

from collections.abc import Mapping
from dataclasses import dataclass

from kao.data.toy.attributes import ACCENTS, ToyFace
from kao.data.toy.canvas import (
    Colour,
    Pen,
    blob,
    dark,
    ellipse,
    light,
    mix,
    on_side,
    star,
    stroke,
    symmetric,
)
from kao.data.toy.features import (
    INK,
    SIDES,
    WHITE,
    coat_colour,
    draw_bow,
    draw_eyes,
    draw_muzzle_mouth,
)
from kao.data.toy.markings import CREAM, MARKINGS, PATCH, ROSE, mask_colour


@dataclass(frozen=True)
class Build:
    """The bones of a species, in half widths of the picture.

    Attributes:
        head: The right half of the head's outline, from the crown down.
        ears: The right ear's outline, its tip third.
        nose: Height of the nose.
        nose_size: Half width of the nose.
        muzzle: Half width and half height of the muzzle; (0, 0) for none.
        whiskered: Whether it has whiskers that show.
    """

    head: tuple[complex, ...]
    ears: tuple[complex, ...]
    nose: float
    nose_size: float
    muzzle: tuple[float, float]
    whiskered: bool = False


_ROUND_EAR = (0.38 - 0.42j, 0.40 - 0.74j, 0.62 - 0.84j, 0.80 - 0.66j, 0.76 - 0.36j, 0.58 - 0.2j)
_BIG_CAT_HEAD = (-0.62j, 0.38 - 0.54j, 0.66 - 0.18j, 0.66 + 0.26j, 0.44 + 0.60j, 0.76j)
_UPRIGHT_EAR = (0.16 - 0.46j, 0.36 - 0.76j, 0.60 - 0.95j, 0.70 - 0.60j, 0.68 - 0.16j, 0.4 - 0.2j)
_FLOPPY_EAR = (0.34 - 0.54j, 0.64 - 0.58j, 0.88 - 0.26j, 0.92 + 0.24j, 0.78 + 0.48j, 0.64 + 0.10j)

BUILDS: Mapping[str, Build] = {
    "cat": Build(
        head=(-0.46j, 0.44 - 0.40j, 0.72 - 0.04j, 0.72 + 0.28j, 0.46 + 0.58j, 0.68j),
        ears=(0.14 - 0.40j, 0.36 - 0.70j, 0.60 - 0.93j, 0.72 - 0.56j, 0.74 - 0.06j, 0.4 - 0.1j),
        nose=0.30,
        nose_size=0.075,
        muzzle=(0.26, 0.17),
        whiskered=True,
    ),
    "dog": Build(
        head=(-0.64j, 0.34 - 0.57j, 0.60 - 0.26j, 0.66 + 0.16j, 0.50 + 0.58j, 0.76j),
        ears=_UPRIGHT_EAR,
        nose=0.22,
        nose_size=0.15,
        muzzle=(0.36, 0.28),
    ),
    "fox": Build(
        head=(-0.48j, 0.40 - 0.42j, 0.66 - 0.04j, 0.80 + 0.22j, 0.40 + 0.52j, 0.82j),
        ears=(0.14 - 0.40j, 0.40 - 0.76j, 0.66 - 1.0j, 0.74 - 0.60j, 0.70 - 0.06j, 0.4 - 0.1j),
        nose=0.46,
        nose_size=0.10,
        muzzle=(0.0, 0.0),
    ),
    "lion": Build(
        head=(-0.50j, 0.36 - 0.44j, 0.54 - 0.12j, 0.52 + 0.24j, 0.38 + 0.54j, 0.66j),
        ears=(0.34 - 0.40j, 0.38 - 0.64j, 0.56 - 0.72j, 0.68 - 0.56j, 0.62 - 0.32j, 0.50 - 0.2j),
        nose=0.22,
        nose_size=0.14,
        muzzle=(0.30, 0.20),
    ),
    "tiger": Build(
        head=_BIG_CAT_HEAD,
        ears=_ROUND_EAR,
        nose=0.24,
        nose_size=0.12,
        muzzle=(0.32, 0.22),
        whiskered=True,
    ),
    "wolf": Build(
        head=(-0.56j, 0.42 - 0.48j, 0.64 - 0.10j, 0.78 + 0.26j, 0.46 + 0.54j, 0.80j),
        ears=_UPRIGHT_EAR,
        nose=0.30,
        nose_size=0.13,
        muzzle=(0.0, 0.0),
    ),
    "leopard": Build(
        head=_BIG_CAT_HEAD,
        ears=_ROUND_EAR,
        nose=0.24,
        nose_size=0.11,
        muzzle=(0.30, 0.21),
        whiskered=True,
    ),
    "bear": Build(
        head=(-0.61j, 0.38 - 0.53j, 0.70 - 0.12j, 0.70 + 0.28j, 0.46 + 0.60j, 0.72j),
        ears=_ROUND_EAR,
        nose=0.22,
        nose_size=0.13,
        muzzle=(0.33, 0.27),
    ),
    "panda": Build(
        head=(-0.56j, 0.46 - 0.48j, 0.76 - 0.06j, 0.76 + 0.32j, 0.48 + 0.60j, 0.70j),
        ears=_ROUND_EAR,
        nose=0.28,
        nose_size=0.10,
        muzzle=(0.0, 0.0),
    ),
}


def draw_animal(pen: Pen, body: Pen, face: ToyFace) -> None:
    """Draw an animal's shoulders and head.

    Args:
        pen: Under the head's pose.
        body: Under the shoulders' pose.
        face: Of class cat, dog or wild.
    """
    build, fur = BUILDS[face.species], coat_colour(face)
    ink = dark(fur, 0.55)
    _draw_shoulders(body, face, fur, ink)
    if face.species == "lion":
        mane = mix(fur, (136, 70, 34), 0.75)
        pen.inked(star(0.06j, 0.96, spikes=13, dent=0.13), mane, dark(mane, 0.4), depth=-0.1)
    hanging = face.style == "floppy-eared"
    if not hanging:
        _draw_ears(pen, face, build, fur, ink)
    _draw_head(pen, face, build, fur, ink)
    MARKINGS[face.marking or face.species](pen, face, fur)
    if face.style == "curly":
        for x, y, radius in ((-0.34, -0.44, 0.26), (0.34, -0.44, 0.26), (0.0, -0.58, 0.36)):
            curls = star(complex(x, y), radius, spikes=8, dent=0.12)
            pen.inked(curls, dark(fur, 0.1), ink, depth=0.06)
    _draw_muzzle(pen, face, build, fur)
    draw_eyes(pen, face, lids=_fur_around_eyes(face, fur), rim=0.032)
    if hanging:
        for side in SIDES:
            pen.inked(on_side(blob(_FLOPPY_EAR), side), dark(fur, 0.3), ink, depth=0.05)
    if face.accessory == "bow":
        draw_bow(pen, 0.46 - 0.58j, ACCENTS[face.accent])


def _draw_shoulders(body: Pen, face: ToyFace, fur: Colour, ink: Colour) -> None:
    colour = (64, 58, 66) if face.species == "panda" else dark(fur, 0.1)
    body.inked(symmetric([0.5j, 0.42 + 0.60j, 0.68 + 0.86j, 0.74 + 1.3j, 1.4j]), colour, ink)
    if face.accessory == "collar":
        band = ACCENTS[face.accent]
        strap = stroke([-0.62 + 0.68j, 0.92j, 0.62 + 0.68j], 0.17, taper=0.0)
        body.inked(strap, band, dark(band, 0.5))
        body.inked(ellipse(0.95j, 0.10, 0.10), (250, 210, 80), (140, 96, 30))


def _draw_head(pen: Pen, face: ToyFace, build: Build, fur: Colour, ink: Colour) -> None:
    head = symmetric(build.head)
    if face.style == "fluffy":
        for side in SIDES:
            tufts = blob([0.56 - 0.02j, 0.92 + 0.20j, 0.76 + 0.30j, 0.88 + 0.48j, 0.36 + 0.62j])
            pen.inked(on_side(tufts, side), fur, ink)
    pen.inked(head, fur, ink)
    if face.style == "fluffy":
        pen.inked(
            star(-0.40j, 0.20, spikes=5, dent=0.4, spin=0.3), light(fur, 0.18), fur, depth=0.1
        )
    pen.glaze(ellipse(0.02 - 0.22j, 0.46, 0.24), (255, 255, 255), opacity=0.10, depth=0.2)


def _draw_ears(pen: Pen, face: ToyFace, build: Build, fur: Colour, ink: Colour) -> None:
    if face.style == "curly":
        for side in SIDES:
            puff = star(0.68 + 0.30j, 0.34, spikes=8, dent=0.12)
            pen.inked(on_side(puff, side), dark(fur, 0.1), ink, depth=-0.05)
        return
    outline = build.ears
    middle = sum(outline) / len(outline)
    lining = [middle + 0.54 * (p - middle) + 0.03j for p in outline]
    back, inside = dark(fur, 0.06), mix(ROSE, fur, 0.2)
    if face.species == "panda":
        back, inside = PATCH, light(PATCH, 0.2)
    elif face.marking == "masked":
        back, inside = mask_colour(fur), light(mask_colour(fur), 0.2)
    elif face.species in ("tiger", "leopard"):
        inside = CREAM
    for side in SIDES:
        pen.inked(on_side(blob(outline), side), back, ink, depth=-0.08)
        pen.fill(on_side(blob(lining), side), inside, depth=-0.08)
        if face.species == "fox" and face.coat != "white":
            tip = blob(
                [outline[2], 0.5 * (outline[2] + outline[1]), 0.5 * (outline[2] + outline[3])]
            )
            pen.fill(on_side(tip, side), (70, 48, 46), depth=-0.08)


def _draw_muzzle(pen: Pen, face: ToyFace, build: Build, fur: Colour) -> None:
    nose, size, (rx, ry) = build.nose, build.nose_size, build.muzzle
    if rx:
        pale = CREAM if face.marking in ("bicolour", "blazed") else light(fur, 0.5)
        if face.species in ("tiger", "leopard"):
            pale = WHITE
        if face.marking == "masked":
            pale = mask_colour(fur)
        pen.fill(ellipse(1j * (nose + 0.72 * ry), rx, ry), pale, depth=0.42)
    rosy = face.species in ("cat", "tiger", "lion", "leopard") and face.coat != "black"
    skin = dark(ROSE, 0.12) if rosy else INK
    if build.whiskered:
        for side in SIDES:
            for tip in (0.80 + 0.20j, 0.82 + 0.40j):
                hair = stroke(
                    [0.24 + 1j * (nose + 0.12), 0.5 + 0.5j * (tip.imag + nose + 0.06), tip], 0.024
                )
                pen.fill(
                    on_side(hair, side),
                    light(fur, 0.75) if sum(fur) < 330 else dark(fur, 0.5),
                    depth=0.3,
                )
    draw_muzzle_mouth(
        pen, face, 1j * (nose + 0.6 * size), half=0.15 + 0.5 * size, drop=0.08 + 0.2 * size
    )
    pad = symmetric(
        [
            1j * (nose - 0.55 * size),
            complex(size, nose - 0.5 * size),
            complex(0.6 * size, nose + 0.35 * size),
            1j * (nose + 0.75 * size),
        ]
    )
    pen.inked(pad, skin, dark(skin, 0.5), depth=0.52, width=0.015)
    pen.fill(
        ellipse(complex(-0.3 * size, nose - 0.2 * size), 0.28 * size, 0.16 * size),
        light(skin, 0.6),
        depth=0.52,
    )


def _fur_around_eyes(face: ToyFace, fur: Colour) -> Colour:
    if face.species == "panda":
        return PATCH
    return mask_colour(fur) if face.marking == "masked" else dark(fur, 0.08)
