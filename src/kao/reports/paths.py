"""The path from noise to a picture: walking it, measuring it, and a figure of what is found.

In the coordinates y = x / alpha, r = sigma / alpha the probability-flow ODE is dy/dr = eps, so a
path on which the model never changes its mind is a straight line (Karras et al. 2022, sec. 3).
"""

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from PIL import Image
from torch import Tensor

from kao.diffusion import Denoise, Level, Sampler, SeededNoise, trajectory
from kao.pixels import to_uint8
from kao.reports.plots import COLOURS, INK, new_figure, rendered, style

PLACES = ((0.25, 0.25), (0.75, 0.25), (0.5, 0.5), (0.25, 0.75), (0.75, 0.75))
"""Where pixels are followed: (across, down), as shares of a picture's sides."""

_GREEN = 1


def along(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    *,
    size: int,
    seeds: Sequence[int],
    device: torch.device | str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """(t, x_t) at every time of a grid, the first included.

    Args:
        denoise: The model.
        sampler: How to step.
        times: Decreasing, float64, (steps + 1,), from `kao.diffusion.grids`.
        size: Side of the pictures in pixels.
        seeds: One a picture, B of them.
        device: Where the model is; None: the CPU.

    Yields:
        The time, float64, shape (); the pictures, float32, (B, 3, size, size).
    """
    noise = SeededNoise(seeds)
    blank = torch.empty(len(seeds), 3, size, size, device=device)
    x = denoise.schedule(times[0]).sigma * noise(blank)
    yield times[0], x
    yield from zip(times[1:], trajectory(denoise, sampler, x, times, noise=noise), strict=True)


def direction(x_t: Tensor, x_s: Tensor, t: Level, s: Level) -> Tensor:
    """Where a step goes in y = x / alpha, up to its length: alpha_t x_s - alpha_s x_t.

    That is alpha_t alpha_s (y_s - y_t), which needs no division and so has its limit at pure
    noise, where alpha_t = 0.

    Args:
        x_t: Pictures before the step, (B, C, H, W).
        x_s: Pictures after it, same shape.
        t: Level of x_t, fields of shape ().
        s: Level of x_s, fields of shape ().

    Returns:
        float64 on the CPU, (B, C * H * W).
    """
    step = t.alpha * x_s.cpu().double() - s.alpha * x_t.cpu().double()
    return step.flatten(1)


def angle(first: Tensor, second: Tensor) -> Tensor:
    """Angle between vectors, in degrees, exact for small ones too (Kahan 2006, sec. 12).

    Args:
        first: float64, (B, D).
        second: Same shape.

    Returns:
        float64, (B,), in [0, 180]; 0 where neither has a length.
    """
    u = torch.nn.functional.normalize(first, dim=1)
    v = torch.nn.functional.normalize(second, dim=1)
    return 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1)).rad2deg()


@dataclass(frozen=True)
class Walk:
    """What was met along the paths of B pictures, in K steps.

    Attributes:
        level: Fields float64, (K + 1,), from noise to picture.
        values: Green of x_t at `PLACES`, float64, (K + 1, B, P), in the units of the data;
            divided by hypot(alpha, sigma) where that is above 1 (VE).
        moves: Root mean square change of the predicted x_0 over each step, float64, (K, B).
            At the end, where no noise is left, the prediction is the picture.
        bends: Angle between successive directions, degrees, float64, (K - 1, B).
        pictures: Where the paths end, uint8, (B, 3, H, W).
    """

    level: Level
    values: Tensor
    moves: Tensor
    bends: Tensor
    pictures: Tensor


def walk(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    *,
    size: int,
    seeds: Sequence[int],
    device: torch.device | str | None = None,
) -> Walk:
    """Follow paths and measure them; one network call a step more than drawing takes.

    Arguments as in `along`.
    """
    rows = torch.tensor([int(down * size) for _, down in PLACES])
    columns = torch.tensor([int(across * size) for across, _ in PLACES])
    values, moves, bends = [], [], []
    before: tuple[Level, Tensor, Tensor] | None = None  # level, x_t and predicted x_0
    came: Tensor | None = None  # the direction of the last step
    with torch.no_grad():
        for t, x in along(denoise, sampler, times, size=size, seeds=seeds, device=device):
            level = denoise.schedule(t)
            x0 = denoise(x, t).x0 if level.sigma > 0 else x
            scale = max(1.0, math.hypot(float(level.alpha), float(level.sigma)))
            values.append(x[:, _GREEN].cpu().double()[:, rows, columns] / scale)
            if before is not None:
                moves.append((x0 - before[2]).cpu().double().square().mean((1, 2, 3)).sqrt())
                goes = direction(before[1], x, before[0], level)
                if came is not None:
                    bends.append(angle(came, goes))
                came = goes
            before = level, x, x0
    none = torch.empty(0, len(seeds), dtype=torch.float64)
    return Walk(
        level=denoise.schedule(times),
        values=torch.stack(values),
        moves=torch.stack(moves),
        bends=torch.stack(bends) if bends else none,
        pictures=to_uint8(x).cpu(),
    )


def trajectory_plot(walked: Walk) -> Image.Image:
    """How a model walks, one column a picture: some pixels, the prediction's moves, the bends.

    Args:
        walked: Of up to six pictures, which is as many as a page is wide.
    """
    count, x = len(walked.pictures), _places(walked.level)
    width = max(8.0, 2.4 * count + 0.6)
    figure = new_figure(width, 11)
    headings = [textwrap.fill(text, int(_LETTERS * width)) for text in _HEADINGS]
    grid = figure.subplots(
        4, count, sharex="row", sharey="row", squeeze=False, height_ratios=(2.2, 3, 2.6, 2.6)
    )
    pictures, pixels, moves, bends = grid
    for axes, picture in zip(pictures, walked.pictures, strict=True):
        _show(axes, picture)
    for i in range(count):
        for axes, heading in zip(grid[1:, i], headings, strict=True):
            style(axes, title="\n".join(" " for _ in heading.splitlines()))  # room for the heading
            axes.set_xlim(float(x[0]) - 0.4, float(x[-1]) + 0.4)
        for place, colour in zip(walked.values[:, i].T, COLOURS, strict=False):
            pixels[i].plot(x, place, color=colour, linewidth=1.6)
        moves[i].plot(x[1:], walked.moves[:, i], ".-", color=COLOURS[0], linewidth=1.6)
        bends[i].plot(x[1:-1], walked.bends[:, i], ".-", color=COLOURS[1], linewidth=1.6)
        _note(bends[i], f"in all {walked.bends[:, i].sum():.0f}\u00b0")
        bends[i].set_xlabel("log-snr: noise to picture", fontsize=11, color=INK)
    for row, heading in zip(grid[1:], headings, strict=True):
        _head(row[0], heading)
    moves[0].set_ylim(bottom=0)
    most = float(walked.bends.max()) if walked.bends.numel() else 0.0
    bends[0].set_ylim(0, max(1.0, 1.3 * most))
    return rendered(figure)


_LETTERS = 10.5  # of a heading, in an inch
_HEADINGS = (
    "Five pixels of x_t (their green), marked above: from noise on the left, each settles on its "
    "value on the right",
    "How far the predicted picture moves in a step (root mean square): where this is near 0, the "
    "picture is decided",
    "By how many degrees the path turns between two steps: 0 is a straight line, which one long "
    "step could follow",
)


def _head(axes: Axes, text: str) -> None:
    """A heading that runs on over the panels to the right; the layout does not know its width."""
    heading = axes.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 9),
        textcoords="offset points",
        fontsize=12,
        color=INK,
    )
    heading.set_in_layout(False)


def _note(axes: Axes, text: str) -> None:
    axes.text(0.05, 0.94, text, transform=axes.transAxes, va="top", fontsize=11, color=INK)


def _show(axes: Axes, picture: Tensor) -> None:
    """The picture, with a dot in the colour of its curve on each pixel that is followed."""
    axes.imshow(picture.permute(1, 2, 0).numpy(), interpolation="nearest")
    side = picture.shape[-1]
    for (across, down), colour in zip(PLACES, COLOURS, strict=False):
        axes.plot(
            int(across * side),
            int(down * side),
            "o",
            markersize=8,
            markerfacecolor=colour,
            markeredgecolor="white",
            markeredgewidth=1.5,
        )
    axes.set_axis_off()


def _places(level: Level) -> Tensor:
    """Log-snr for an axis: an end that is clean or pure noise stands a step beyond the others.

    A schedule's last alpha may be 6e-17 where 0 is meant, so +-25 is taken for infinite: it is
    beyond what float32 pictures can show.
    """
    x = level.snr.log()
    inner = x[x.abs() < 25]
    if not len(inner):
        return torch.arange(len(x), dtype=torch.float64)
    step = float((inner[-1] - inner[0]) / max(1, len(inner) - 1)) or 1.0
    return x.clamp(float(inner[0]) - step, float(inner[-1]) + step)
