"""Shapes and a pen for the toy faces.

A point is the complex number x + iy: x to the right, y down, and the picture is the square
[-1, 1] x [-1, 1].  So a turn is a product, a mirror image is -conj(p), and a shape is one array.
A pen places shapes on a large canvas under a pose; the canvas is then averaged down (a box
filter), which is what makes the picture smooth and the same at every size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Points = NDArray[np.complex128]
Colour = tuple[int, int, int]

SAMPLES = 6
"""Points that a curve gets between two of its control points."""

TILT_PIVOT = 0.5j
"""The base of the skull, about which a head tilts."""

_CIRCLE: Points = np.exp(2j * np.pi * np.arange(28) / 28)


def _catmull_rom_basis() -> NDArray[np.float64]:
    """What each of four control points adds to each sample, (4, SAMPLES)."""
    t = np.arange(SAMPLES) / SAMPLES
    powers = np.stack([np.ones_like(t), t, t**2, t**3])
    weights = np.array([[0, -1, 2, -1], [2, 0, -5, 3], [0, 1, 4, -3], [0, 0, -1, 1]]) / 2
    return weights @ powers


_CATMULL_ROM = _catmull_rom_basis()


@dataclass(frozen=True)
class Pose:
    """Where a head is and where it looks.

    Attributes:
        tilt: Roll, in radians; positive leans to the picture's right.
        turn: Yaw, in radians; positive looks to the picture's right.
        nod: Pitch, in radians; positive looks down.
        scale: Size against the usual one.
        x, y: Shift, in half widths of the picture.
        stretch: Width of the head against the usual one.
    """

    tilt: float = 0.0
    turn: float = 0.0
    nod: float = 0.0
    scale: float = 1.0
    x: float = 0.0
    y: float = 0.0
    stretch: float = 1.0

    def place(self, points: Points, depth: float) -> Points:
        """Points of the picture, from points of an upright head.

        Args:
            points: (N,), complex.
            depth: How far the shape lies before the head's outline, in half widths of the
                picture; what is nearer moves further when the head turns or nods.
        """
        x, y = points.real, points.imag
        # A head is round: towards its outline the surface falls back to depth 0.
        x = self.stretch * (x + depth * math.sin(self.turn) * (1 - x * x))
        y = y + depth * math.sin(self.nod) * (1 - y * y)
        upright = x + 1j * y - TILT_PIVOT
        return upright * (self.scale * complex(math.cos(self.tilt), math.sin(self.tilt))) + (
            TILT_PIVOT * self.scale + complex(self.x, self.y)
        )


class Pen:
    """Fills shapes on a canvas under a pose.

    Args:
        image: The canvas: square, RGB.
        pose: Where the shapes go.
    """

    def __init__(self, image: Image.Image, pose: Pose):
        self.pose = pose
        self._half = image.width / 2
        self._opaque = ImageDraw.Draw(image)
        self._glaze = ImageDraw.Draw(image, "RGBA")

    def fill(self, points: Points, colour: Colour, *, depth: float = 0.0) -> None:
        """Fill a closed shape, (N,), with an opaque colour."""
        self._opaque.polygon(self._pixels(points, depth), fill=colour)

    def glaze(self, points: Points, colour: Colour, *, opacity: float, depth: float = 0.0) -> None:
        """Fill a closed shape, (N,), with a colour of the given opacity in [0, 1]."""
        self._glaze.polygon(self._pixels(points, depth), fill=(*colour, round(255 * opacity)))

    def inked(
        self,
        points: Points,
        colour: Colour,
        ink: Colour,
        *,
        depth: float = 0.0,
        width: float = 0.03,
    ) -> None:
        """Fill a closed shape, (N,), and draw a line of `width` half widths around it."""
        self.fill(grown(points, width), ink, depth=depth)
        self.fill(points, colour, depth=depth)

    def _pixels(self, points: Points, depth: float) -> list[float]:
        placed = (self.pose.place(points, depth) + (1 + 1j)) * self._half
        return placed.view(np.float64).tolist()


def mix(a: Colour, b: Colour, share: float) -> Colour:
    """The colour `share` of the way from `a` to `b`."""
    red, green, blue = (round(p + (q - p) * share) for p, q in zip(a, b, strict=True))
    return red, green, blue


def dark(colour: Colour, share: float = 0.4) -> Colour:
    """A colour brought towards a warm black."""
    return mix(colour, (30, 18, 24), share)


def light(colour: Colour, share: float = 0.4) -> Colour:
    """A colour brought towards a warm white."""
    return mix(colour, (255, 250, 242), share)


def mirror(points: Points) -> Points:
    """The shape on the other side of the head."""
    return -points.conj()


def on_side(points: Points, side: int) -> Points:
    """A shape given for the right half of the picture (side 1), or its mirror image (side -1)."""
    return points if side > 0 else mirror(points)


def ellipse(centre: complex, rx: float, ry: float) -> Points:
    """An ellipse, (28,)."""
    return centre + rx * _CIRCLE.real + 1j * (ry * _CIRCLE.imag)


def star(centre: complex, radius: float, *, spikes: int, dent: float, spin: float = 0.0) -> Points:
    """A circle whose edge swings `spikes` times between `radius` and `radius * (1 - dent)`."""
    angle = np.arange(6 * spikes) * (2 * math.pi / (6 * spikes))
    return centre + radius * (1 - dent * (0.5 + 0.5 * np.cos(spikes * angle))) * np.exp(
        1j * (angle + spin)
    )


def blob(control: Sequence[complex]) -> Points:
    """The closed smooth curve through K control points, (K * SAMPLES,) (Catmull & Rom 1974)."""
    p = np.asarray(control, dtype=np.complex128)
    return _catmull_rom(np.stack([np.roll(p, 1), p, np.roll(p, -1), np.roll(p, -2)]))


def symmetric(right_half: Sequence[complex]) -> Points:
    """The closed smooth curve through the right half, listed downwards, and its mirror image.

    A control point on the axis (x = 0) is taken once.
    """
    left_half = [complex(-p.real, p.imag) for p in reversed(right_half) if p.real != 0]
    return blob([*right_half, *left_half])


def curve(control: Sequence[complex]) -> Points:
    """The open smooth curve through K control points, ((K - 1) * SAMPLES + 1,)."""
    p = np.asarray(control, dtype=np.complex128)
    padded = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    return np.append(_catmull_rom(np.stack([padded[i : len(p) - 1 + i] for i in range(4)])), p[-1])


def stroke(control: Sequence[complex], width: float, *, taper: float = 0.5) -> Points:
    """A brush stroke along a curve, as a closed shape.

    Args:
        control: The points that the stroke passes, in order.
        width: Width in the middle, in half widths of the picture.
        taper: How much of the width is gone at both ends: 0 blunt, 1 pointed.
    """
    line = curve(control)
    along = np.linspace(-1, 1, len(line))
    half = 0.5 * width * (1 - taper * along**2)
    normal = 1j * _unit(np.gradient(line)) * half
    return np.concatenate([line + normal, (line - normal)[::-1]])


def grown(points: Points, by: float) -> Points:
    """The shape with its edge moved outwards by `by` half widths of the picture."""
    tangent = _unit(np.roll(points, -1) - np.roll(points, 1))
    following = np.roll(points, -1)
    clockwise = np.sign(np.sum(points.real * following.imag - points.imag * following.real))
    return points - 1j * tangent * (by * clockwise)


def _unit(vectors: Points) -> Points:
    return vectors / np.maximum(np.abs(vectors), 1e-9)


def _catmull_rom(windows: Points) -> Points:
    """The curve between the middle two of each four control points; windows is (4, K)."""
    return (windows.T @ _CATMULL_ROM).ravel()
