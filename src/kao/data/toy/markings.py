"""Markings of fur: stripes, patches, masks and spots."""

from collections.abc import Callable, Mapping

from kao.data.toy.attributes import ToyFace
from kao.data.toy.canvas import (
    Colour,
    Pen,
    blob,
    dark,
    ellipse,
    light,
    mix,
    on_side,
    stroke,
    symmetric,
)
from kao.data.toy.features import EYE_DEPTH, SIDES, WHITE, eye_shape

CREAM: Colour = (252, 244, 230)
ROSE: Colour = (240, 150, 158)
PATCH: Colour = (62, 54, 60)


def mask_colour(fur: Colour) -> Colour:
    """The colour of a masked animal's mask and ears: dark, but pale where the fur is dark."""
    return (84, 70, 74) if sum(fur) > 280 else light(fur, 0.42)


def _plain(pen: Pen, face: ToyFace, fur: Colour) -> None:
    pass


def _stripes(pen: Pen, colour: Colour, *, width: float, jaw: float) -> None:
    """Three stripes on the brow and two on each cheek, which reach in to x = `jaw`."""
    pen.fill(stroke([-0.46j, -0.20j], width, taper=0.9), colour, depth=0.2)
    for side in SIDES:
        brow = stroke([0.20 - 0.44j, 0.15 - 0.22j], width, taper=0.9)
        pen.fill(on_side(brow, side), colour, depth=0.2)
        for y in (0.20, 0.36):
            cheek = [0.69 + 1j * (y - 0.06), 0.6 + 1j * y, jaw + 1j * (y + 0.01)]
            pen.fill(on_side(stroke(cheek, width, taper=0.9), side), colour)


def _tabby(pen: Pen, face: ToyFace, fur: Colour) -> None:
    stripe = dark(fur, 0.42) if sum(fur) > 280 else light(fur, 0.25)
    _stripes(pen, stripe, width=0.10, jaw=0.50)


def _bicolour(pen: Pen, face: ToyFace, fur: Colour) -> None:
    """A white blaze that widens to a white chin; on white fur a grey cap."""
    if face.coat == "white":
        for side in SIDES:
            cap = blob([0.05 - 0.43j, 0.44 - 0.38j, 0.68 - 0.06j, 0.5 - 0.04j, 0.14 - 0.12j])
            pen.fill(on_side(cap, side), (120, 118, 130), depth=0.04)
        return
    blaze = symmetric([-0.24j, 0.07 + 0.02j, 0.30 + 0.32j, 0.38 + 0.56j, 0.66j])
    pen.fill(blaze, WHITE, depth=0.12)


def _patched(pen: Pen, face: ToyFace, fur: Colour) -> None:
    """A patch of another colour around one eye."""
    other = (206, 128, 66) if face.coat in ("white", "grey", "black") else WHITE
    side = 1 if face.gaze[0] > 0 else -1
    eye = eye_shape(face)
    around = ellipse(complex(eye.x + 0.02, eye.y - 0.04), 0.30, 0.32)
    pen.fill(on_side(around, side), other, depth=0.30)


def _masked(pen: Pen, face: ToyFace, fur: Colour) -> None:
    """A mask over eyes and nose, as Siamese cats have."""
    colour = mask_colour(fur)
    mask = symmetric([-0.22j, 0.34 - 0.16j, 0.56 + 0.10j, 0.42 + 0.42j, 0.58j])
    pen.fill(mask, mix(colour, fur, 0.3), depth=0.22)
    pen.fill(symmetric([0.02j, 0.24 + 0.12j, 0.36 + 0.38j, 0.56j]), colour, depth=0.26)


def _blazed(pen: Pen, face: ToyFace, fur: Colour) -> None:
    """A white blaze between the eyes; on pale fur, dark cheeks leave it."""
    if face.coat in ("white", "cream"):
        for side in SIDES:
            cheek = blob(
                [0.14 - 0.60j, 0.40 - 0.57j, 0.59 - 0.22j, 0.57 + 0.16j, 0.34 + 0.22j, 0.13 - 0.1j]
            )
            pen.fill(on_side(cheek, side), (150, 98, 62), depth=0.06)
        return
    blaze = symmetric([-0.58j, 0.10 - 0.40j, 0.09 - 0.02j, 0.30 + 0.30j, 0.34 + 0.60j, 0.74j])
    pen.fill(blaze, CREAM, depth=0.14)


def _fox(pen: Pen, face: ToyFace, fur: Colour) -> None:
    cheeks = light(fur, 0.3) if face.coat == "white" else CREAM
    for side in SIDES:
        cheek = blob([0.06 + 0.44j, 0.34 + 0.26j, 0.78 + 0.20j, 0.42 + 0.50j, 0.02 + 0.80j])
        pen.fill(on_side(cheek, side), cheeks, depth=0.04)
    bridge = symmetric([0.0j, 0.10 + 0.10j, 0.15 + 0.44j, 0.58j])
    pen.fill(bridge, mix(fur, WHITE, 0.12), depth=0.40)


def _lion(pen: Pen, face: ToyFace, fur: Colour) -> None:
    bridge = symmetric([-0.30j, 0.10 - 0.10j, 0.13 + 0.14j, 0.3j])
    pen.fill(bridge, light(fur, 0.35), depth=0.36)


def _tiger(pen: Pen, face: ToyFace, fur: Colour) -> None:
    for side in SIDES:
        cheek = blob([0.10 + 0.40j, 0.34 + 0.18j, 0.64 + 0.22j, 0.46 + 0.56j, 0.04 + 0.72j])
        pen.fill(on_side(cheek, side), WHITE, depth=0.03)
        spot = ellipse(complex(0.27, -0.21), 0.13, 0.07)
        pen.fill(on_side(spot, side), WHITE, depth=EYE_DEPTH)
    stripe = (52, 40, 44)
    for y, half in ((-0.50, 0.20), (-0.37, 0.15), (-0.25, 0.10)):
        band = [complex(-half, y - 0.05), complex(0, y + 0.02), complex(half, y - 0.05)]
        pen.fill(stroke(band, 0.075, taper=0.9), stripe, depth=0.2)
    for side in SIDES:
        for y, reach in ((-0.16, 0.50), (0.06, 0.50), (0.28, 0.42), (0.45, 0.38)):
            edge = 0.69 if y < 0.3 else 0.58
            band = [
                complex(edge, y - 0.05),
                complex(0.5 * (edge + reach), y),
                complex(reach, y + 0.01),
            ]
            pen.fill(on_side(stroke(band, 0.085, taper=0.9), side), stripe)


def _wolf(pen: Pen, face: ToyFace, fur: Colour) -> None:
    """Pale brows and cheeks around a dark bridge."""
    pale = light(fur, 0.72)
    for side in SIDES:
        cheek = blob(
            [0.04 + 0.30j, 0.26 + 0.16j, 0.56 + 0.14j, 0.74 + 0.28j, 0.44 + 0.53j, 0.02 + 0.78j]
        )
        pen.fill(on_side(cheek, side), pale, depth=0.06)
        brow = ellipse(0.24 - 0.20j, 0.12, 0.09)
        pen.fill(on_side(brow, side), pale, depth=0.34)
    bridge = symmetric([-0.40j, 0.10 - 0.14j, 0.12 + 0.30j, 0.40j])
    pen.fill(bridge, dark(fur, 0.2), depth=0.36)


def _leopard(pen: Pen, face: ToyFace, fur: Colour) -> None:
    rosette, heart = (92, 58, 36), dark(fur, 0.15)
    for x, y, r in _ROSETTES:
        for side in SIDES if x else (1,):
            pen.fill(on_side(ellipse(complex(x, y), r, 0.85 * r), side), rosette, depth=0.15)
            pen.fill(on_side(ellipse(complex(x, y), 0.45 * r, 0.4 * r), side), heart, depth=0.15)


_ROSETTES = (
    (0.0, -0.50, 0.065),
    (0.16, -0.40, 0.07),
    (0.0, -0.28, 0.07),
    (0.34, -0.42, 0.06),
    (0.20, -0.24, 0.05),
    (0.54, -0.20, 0.06),
    (0.58, 0.02, 0.065),
    (0.56, 0.24, 0.07),
    (0.46, 0.42, 0.065),
)


def _panda(pen: Pen, face: ToyFace, fur: Colour) -> None:
    eye = eye_shape(face)
    for side in SIDES:
        patch = blob(
            [
                complex(eye.x - 0.18, eye.y - 0.08),
                complex(eye.x + 0.04, eye.y - 0.23),
                complex(eye.x + 0.26, eye.y + 0.06),
                complex(eye.x + 0.20, eye.y + 0.30),
                complex(eye.x - 0.08, eye.y + 0.22),
            ]
        )
        pen.fill(on_side(patch, side), PATCH, depth=EYE_DEPTH - 0.05)


Marking = Callable[[Pen, ToyFace, Colour], None]

MARKINGS: Mapping[str, Marking] = {
    "cat": _plain,
    "dog": _plain,
    "bear": _plain,
    "tabby": _tabby,
    "bicolour": _bicolour,
    "patched": _patched,
    "masked": _masked,
    "blazed": _blazed,
    "fox": _fox,
    "lion": _lion,
    "tiger": _tiger,
    "wolf": _wolf,
    "leopard": _leopard,
    "panda": _panda,
}
"""Draws a marking, or a species' own pattern, on the head."""
