"""A toy face as a picture."""

import math
from dataclasses import replace

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kao.data.toy.animals import draw_animal
from kao.data.toy.attributes import BACKGROUNDS, ToyFace
from kao.data.toy.canvas import Colour, Pen, Pose, dark, ellipse, light, stroke
from kao.data.toy.people import draw_person
from kao.errors import ConfigError

SIZES = range(16, 257)
"""Sizes that a face can be drawn at, in pixels."""

_CANVAS = 256
"""Least size of the canvas that a picture is averaged down from, in pixels."""


def draw(face: ToyFace, size: int) -> Tensor:
    """Draw a face.

    Args:
        face: What to draw.
        size: Height and width in pixels, 16..256.

    Returns:
        uint8, (3, size, size), RGB.

    Raises:
        ConfigError: The size is out of range.
    """
    check_size(size)
    # Samples a pixel's side: at least 4, which gives 16 steps of grey along an edge.
    samples = max(4, math.ceil(_CANVAS / size))
    image = _backdrop(face, size * samples)
    pen = Pen(image, face.pose)
    body = Pen(image, replace(face.pose, tilt=0.25 * face.pose.tilt, turn=0.0, nod=0.0))
    if face.skin:
        draw_person(pen, body, face)
    else:
        draw_animal(pen, body, face)
    pixels = np.array(image.reduce(samples))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_size(size: int) -> None:
    """Refuse a size that faces are not drawn at.

    Raises:
        ConfigError: The size is out of range.
    """
    if size not in SIZES:
        raise ConfigError(
            f"Toy faces are drawn at {SIZES[0]} to {SIZES[-1]} pixels and size = {size} was asked "
            f"for: choose a size in that range."
        )


def _backdrop(face: ToyFace, size: int) -> Image.Image:
    colour = BACKGROUNDS[face.background]
    if face.backdrop == "shaded":
        return _shaded(light(colour, 0.45), dark(colour, 0.15), size)
    image = Image.new("RGB", (size, size), colour)
    pen, second = Pen(image, Pose()), light(colour, 0.32)
    match face.backdrop:
        case "striped":
            for x in np.arange(-1.8, 2.0, 0.5):
                pen.fill(stroke([x - 0.5 - 1.2j, x + 0.5 + 1.2j], 0.22, taper=0.0), second)
        case "dotted":
            for row, y in enumerate(np.arange(-0.9, 1.2, 0.36)):
                for x in np.arange(-1.1 + 0.21 * (row % 2), 1.2, 0.42):
                    pen.fill(ellipse(complex(x, y), 0.09, 0.09), second)
        case "rayed":
            for angle in np.arange(12) * (math.pi / 6):
                ray = np.array([0, 2 * np.exp(1j * angle), 2 * np.exp(1j * (angle + 0.26))])
                pen.fill(ray, second)
        case _:
            pass
    return image


def _shaded(above: Colour, below: Colour, size: int) -> Image.Image:
    """A picture that goes from one colour at the top to another at the bottom."""
    down = np.linspace(0, 1, size)[:, None, None]
    column = np.asarray(above) * (1 - down) + np.asarray(below) * down
    return Image.fromarray(column.round().astype(np.uint8)).resize((size, size))
