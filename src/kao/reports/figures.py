"""Strips and films of a model: how noise comes and goes.

Functions take the objects of `kao.diffusion` and return pictures.  The network is used as it
is: put it in eval mode first.  A *share* is a time as a part of t_max: 0 is a clean picture,
1 is noise.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from kao.diffusion import Denoise, Level, NoiseSchedule, Sampler, SeededNoise, seeds_of
from kao.pixels import to_uint8
from kao.reports.paths import along
from kao.visualisation import gif, spread, strip

SHARES = (0.0, 0.25, 0.5, 0.75, 0.99)
"""The shares at which strips look."""


def forward_strip(
    schedule: NoiseSchedule, images: Tensor, *, seed: int, shares: Sequence[float] = SHARES
) -> Image.Image:
    """Pictures as noise is added: x_t = alpha_t x_0 + sigma_t eps, one eps a picture.

    Args:
        schedule: The curve t -> (alpha, sigma).
        images: float32 in [-1, 1], (B, 3, H, W); one row each.
        seed: Of the noise; picture i has the noise of seed i of the set, whatever B.
        shares: Of t_max, each in [0, 1]; one column each.
    """
    eps = SeededNoise(seeds_of(seed, range(len(images))))(images)
    columns = []
    for share in shares:
        level = schedule(_time(schedule, share))
        alpha, sigma = level.like(images)
        columns.append(visible(alpha * images + sigma * eps, level))
    rows = list(torch.stack(columns, dim=1))
    return strip(rows, titles=[_percent(share) for share in shares])


def reverse_strip(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    *,
    size: int,
    seeds: Sequence[int],
    shares: Sequence[float] = SHARES,
    device: torch.device | str | None = None,
) -> Image.Image:
    """From noise to pictures, each with what the model predicts on the way.

    Every picture has two rows: x_t, and the x_0 that the model predicts from it.  At the end,
    where no noise is left, the prediction is the picture.

    Args:
        denoise: The model.
        sampler: How to step.
        times: Decreasing, float64, (steps + 1,), from `kao.diffusion.grids`.
        size: Side of the pictures in pixels.
        seeds: One a picture.
        shares: Of t_max, in any order; columns are the times of the grid nearest to them, from
            noisy to clean, each once and titled with its own share.
        device: Where the model is; None: the CPU.
    """
    schedule = denoise.schedule
    wanted = {int((times - _time(schedule, share)).abs().argmin()) for share in shares}
    noisy, predicted, titles = [], [], []
    path = along(denoise, sampler, times, size=size, seeds=seeds, device=device)
    with torch.no_grad():
        for i, (t, x) in enumerate(path):
            if i not in wanted:
                continue
            level = schedule(t)
            x0 = denoise(x, t).x0 if level.sigma > 0 else x
            noisy.append(visible(x, level))
            predicted.append(to_uint8(x0))
            titles.append(_percent(float(t) / schedule.t_max))
    pairs = zip(torch.stack(noisy, dim=1), torch.stack(predicted, dim=1), strict=True)
    rows = [row for pair in pairs for row in pair]
    return strip(rows, titles=titles, row_titles=["noisy", "predicted"] * len(seeds))


def process_strips(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    *,
    size: int,
    seeds: Sequence[int],
    columns: int = 8,
    device: torch.device | str | None = None,
) -> Image.Image:
    """Whole denoisings, one row a picture, from the first noise to the end.

    Args:
        denoise: The model.
        sampler: How to step.
        times: Decreasing, float64, (steps + 1,).
        size: Side of the pictures in pixels.
        seeds: One a picture; six make a good figure.
        columns: Moments shown, evenly spaced in steps; fewer where the grid has fewer.
        device: Where the model is; None: the CPU.
    """
    shown = set(spread(len(times), columns))
    moments, titles = [], []
    path = along(denoise, sampler, times, size=size, seeds=seeds, device=device)
    with torch.no_grad():
        for i, (t, x) in enumerate(path):
            if i in shown:
                moments.append(visible(x, denoise.schedule(t)))
                titles.append(_percent(float(t) / denoise.schedule.t_max))
    return strip(list(torch.stack(moments, dim=1)), titles=titles)


def denoising_gif(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    path: Path,
    *,
    size: int,
    seeds: Sequence[int],
    seconds: float = 3.0,
    hold: float = 2.0,
    device: torch.device | str | None = None,
) -> Path:
    """Write a film of a grid of pictures as they come out of noise.

    Args:
        denoise: The model.
        sampler: How to step.
        times: Decreasing, float64, (steps + 1,).
        path: The GIF to write.
        size: Side of the pictures in pixels.
        seeds: One a picture.
        seconds: How long the denoising takes.
        hold: How long the finished pictures stay.
        device: Where the model is; None: the CPU.

    Returns:
        `path`.

    Raises:
        OutputError: The file cannot be written.
    """
    steps = along(denoise, sampler, times, size=size, seeds=seeds, device=device)
    with torch.no_grad():
        frames = [visible(x, denoise.schedule(t)).cpu() for t, x in steps]
    return gif(frames, path, seconds=seconds, hold=hold)


def visible(x: Tensor, level: Level) -> Tensor:
    """Noisy pictures as bytes: where alpha^2 + sigma^2 is past 1 (VE), brought back to it."""
    spread_out = math.hypot(float(level.alpha), float(level.sigma))
    return to_uint8(x / max(1.0, spread_out))


def _time(schedule: NoiseSchedule, share: float) -> Tensor:
    return torch.tensor(share * schedule.t_max, dtype=torch.float64)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
