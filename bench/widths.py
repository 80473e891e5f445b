"""Networks of the peers with as many parameters as ours."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
from packages import needed
from torch import nn

from kao.networks.cost import parameters

TOLERANCE = 0.02
"""Largest difference in the number of parameters."""

Shape = Literal["example", "ours"]
C = TypeVar("C")


def unet2d(shape: Shape, *, size: int, wanted: int) -> Any:
    """UNet2DModel of diffusers.

    The example's six levels of 128, 128, 256, 256, 512, 512 channels are narrowed alike, the two
    last a little more or less; so are three levels of about 1 : 2 : 3.

    Args:
        shape: The example's six levels, or three as in faces-32.
        size: Of the pictures, pixels.
        wanted: Parameters.
    """
    diffusers = needed("diffusers")

    def build(widths: tuple[int, ...]) -> Any:
        plain, attends = ("DownBlock2D", "UpBlock2D"), ("AttnDownBlock2D", "AttnUpBlock2D")
        example = [plain, plain, plain, plain, attends, plain]
        blocks = example if shape == "example" else [plain, attends, attends]
        return diffusers.UNet2DModel(
            sample_size=size,
            layers_per_block=2,
            block_out_channels=widths,
            down_block_types=tuple(down for down, _ in blocks),
            up_block_types=tuple(up for _, up in reversed(blocks)),
            norm_num_groups=8,
        )

    def candidates(w: int) -> Iterator[tuple[int, ...]]:
        for i in range(-4, 5):
            last = (4 * w + 8 * i,) * 2 if shape == "example" else (3 * w + 8 * i,)
            yield (w, w, 2 * w, 2 * w, *last) if shape == "example" else (w, 2 * w, *last)

    # Parameters grow with the square of the width: 113.7 M and 18.9 M at a width of 128 and 80.
    middle = (128 if shape == "example" else 80) * (
        wanted / (113.7e6 if shape == "example" else 18.9e6)
    ) ** 0.5
    widths = [8 * (int(middle) // 8 + i) for i in (0, 1)]
    choices = [c for w in widths for c in candidates(w) if min(c) > 0]
    return build(_nearest(choices, build, wanted))


def lucid_unet(package: Any, *, wanted: int) -> tuple[nn.Module, list[int]]:
    """Unet of lucidrains; with its width and the channels of an attention head.

    Four levels of 1, 2, 4, 8 times the width, as is its default; the width is even, so the rest of
    the way to the wanted number goes through the width of the heads, which is 32 by default.

    Args:
        package: denoising_diffusion_pytorch.
        wanted: Parameters.
    """
    middle = 64 * (wanted / 35.7e6) ** 0.5  # 35.7 M at its default width of 64
    choices = [
        (2 * (int(middle) // 2 + i), head) for i in (0, 1) for head in (24, 28, 32, 36, 40, 48)
    ]

    def build(choice: tuple[int, int]) -> nn.Module:
        network: nn.Module = package.Unet(dim=choice[0], attn_dim_head=choice[1])
        return network

    best = _nearest(choices, build, wanted)
    return build(best), list(best)


def _nearest(choices: Sequence[C], build: Callable[[C], nn.Module], wanted: int) -> C:
    with torch.device("meta"):
        counts = {choice: parameters(build(choice)) for choice in choices}
    best = min(counts, key=lambda choice: abs(counts[choice] - wanted))
    if abs(counts[best] / wanted - 1) > TOLERANCE:
        raise SystemExit(f"No widths come within 2 % of {wanted:,} parameters: {counts}.")
    return best
