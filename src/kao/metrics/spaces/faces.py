"""A small feature network that comes with the package: no download, no waiting.

`tools/train_features.py` made it, from toy faces and drawn textures alone: it has never seen a
real picture.  docs/measuring.md says what it ranks rightly, and what it cannot see.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from kao.errors import ConfigError
from kao.metrics.spaces.chunks import in_chunks
from kao.pixels import to_float

SIDE = 32
"""Pixels of a side at which pictures are looked at."""

WIDTH = 128
"""Numbers that a picture becomes."""

BUNDLED = Path(__file__).with_name("faces-1.safetensors")
"""The weights that come with the package."""

_WIDTHS = (24, 40, 72, 96, 128)
_STRIDES = (1, 2, 2, 2, 1)
_CELLS = (1, 2, 1, 0, 1)  # a side of the grid that a layer's activations are averaged on; 0: not

_CHUNK = 256  # pictures at a time


class Layers(nn.Module):
    """Five 3 x 3 convolutions, and averages of what four of them answer.

    Means of rectified filters over the whole picture, or its quarters, say how much of a pattern
    there is, and little of where: that is what makes sets of pictures comparable.  Most of them
    follow brightness and contrast.  So they are turned to the principal axes that they have on
    the pictures of the training, and each axis is divided by the root of its standard deviation:
    what varies little from face to face, and much with damage, is heard too.

    Attributes:
        means: How many averages are taken of a picture.
        width: Numbers that are made of them.
        centre: The averages' own means over the pictures of the training, (means,).
        axes: (means, width).
    """

    centre: Tensor
    axes: Tensor

    def __init__(self) -> None:
        super().__init__()
        inputs = (3, *_WIDTHS[:-1])
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, 3, stride=s, padding=1)
            for i, o, s in zip(inputs, _WIDTHS, _STRIDES, strict=True)
        )
        self.means = sum(w * c**2 for w, c in zip(_WIDTHS, _CELLS, strict=True))
        self.width = WIDTH
        self.register_buffer("centre", torch.zeros(self.means))
        self.register_buffer("axes", torch.zeros(self.means, self.width))

    def averages(self, x: Tensor) -> Tensor:
        """Averaged activations: (B, 3, 32, 32) in [-1, 1] to (B, means)."""
        parts = []
        for convolution, cells in zip(self.convolutions, _CELLS, strict=True):
            x = F.relu(convolution(x))
            if cells:
                parts.append(F.avg_pool2d(x, x.shape[-1] // cells).flatten(1))
        return torch.cat(parts, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Features of pictures: (B, 3, 32, 32) in [-1, 1] to (B, width), float32."""
        return (self.averages(x) - self.centre) @ self.axes


class Faces(nn.Module):
    """The bundled feature network: colours, edges, textures and rough layout, as toy faces taught.

    Pictures of any size are looked at in 32 x 32 pixels, after antialiased bilinear resizing, so
    detail that only larger pictures have is not seen.

    Args:
        path: Weights that `tools/train_features.py` wrote; the file names the space.

    Raises:
        ConfigError: The file is missing or is no such file.
    """

    resize = "to 32 pixels, bilinear"

    def __init__(self, path: Path = BUNDLED):
        super().__init__()
        self.layers = Layers()
        try:
            with safe_open(path, framework="pt") as file:
                self.name: str = file.metadata()["name"]
                weights = {key: file.get_tensor(key).float() for key in file.keys()}
            self.layers.load_state_dict(weights)
        except (OSError, SafetensorError, LookupError, TypeError, RuntimeError) as error:
            raise ConfigError(
                f"{path} holds no weights of the bundled feature network: expected a file that "
                f"tools/train_features.py wrote, or the one that comes with kao."
            ) from error
        self.layers.requires_grad_(False)
        self.width = self.layers.width

    def forward(self, images: Tensor) -> Tensor:
        """Features of pictures, without gradients.

        Args:
            images: uint8, (B, 3, S, S), RGB, on the device of the space.

        Returns:
            float32, (B, width).

        Raises:
            ConfigError: The pictures are not square, not RGB or not bytes.
        """
        return in_chunks(self._look, images, chunk=_CHUNK)

    def _look(self, images: Tensor) -> Tensor:
        if images.shape[2] != images.shape[3]:
            raise ConfigError(
                f"The bundled feature network takes square pictures and these are "
                f"{images.shape[3]} x {images.shape[2]}: crop them."
            )
        x = to_float(images)
        if images.shape[2] != SIDE:
            x = F.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True)
        return self.layers(x)
