"""Figures of real pictures under a model's hands: recovered, varied, completed, inverted.

Each function draws one labelled sheet, a row a picture, and keeps moments of the way for a film.
The network is used as it is: put it in eval mode first.  Images are float32 in [-1, 1],
(B, 3, S, S), on the device of the model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from PIL import Image
from torch import Tensor

from kao.diffusion import (
    DDIM,
    Ancestral,
    Denoise,
    Sampler,
    SeededNoise,
    seeds_of,
    trajectory,
)
from kao.diffusion.editing import inpaint, noised, recover, starting_at
from kao.diffusion.inversion import BetweenSeeds, invert, rms_error, slerp
from kao.diffusion.schedules import DiscreteSchedule, NoiseSchedule
from kao.pixels import to_uint8
from kao.reports.figures import visible
from kao.visualisation import spread, strip

MOMENTS = 30
"""Frames of a film, at most: what a GIF shows in three seconds."""

VARIANCES: tuple[Literal["beta", "beta_tilde"], ...] = ("beta", "beta_tilde")
"""Those of DDPM's steps, which `recovery` compares."""


@dataclass(frozen=True)
class Edited:
    """What an edit looks like.

    Attributes:
        sheet: The labelled figure.
        frames: Moments of the way in order, each uint8, (N, 3, S, S), on the CPU.
        columns: Of a frame's grid.
    """

    sheet: Image.Image
    frames: list[Tensor]
    columns: int


def recovery(
    denoise: Denoise,
    images: Tensor,
    times: Tensor,
    *,
    starts: Sequence[tuple[str, Tensor]],
    seed: int,
    misled: bool = False,
) -> Edited:
    """Pictures noised to some times and denoised by DDPM, with each of its two variances.

    Four columns: the original, as noised, and what comes back.  The film shows the last start,
    the two ways side by side.

    Args:
        denoise: The model.
        images: The originals.
        times: The grid of the whole way, float64, (steps + 1,).
        starts: Names and times, float64, shape (): one row a picture for each.
        seed: Of the noise, which is the same at every start.
        misled: Hand the noisy pictures to the sampler as if they came from times[0]; the row
            titles say so.
    """
    schedule, seeds = denoise.schedule, seeds_of(seed, range(len(images)))
    rows, names, frames = [], [], []
    for name, t in starts:
        way = times if misled else starting_at(times, t)
        ends, films = [], []
        for variance in VARIANCES:
            path = recover(denoise, Ancestral(variance), images, way, noise=SeededNoise(seeds), t=t)
            end, film = _followed(path, way[1:], schedule)
            ends.append(to_uint8(end))
            films.append(film)
        noisy = visible(noised(schedule, images, t, SeededNoise(seeds)), schedule(t))
        rows += list(torch.stack([to_uint8(images), noisy, *ends], dim=1))
        names += [f"{name}, from T" if misled else name] * len(images)
        frames = [torch.stack(pair, dim=1).flatten(0, 1) for pair in zip(*films, strict=True)]
    titles = ["original", "noisy", "beta", "beta-tilde"]
    return Edited(strip(rows, titles=titles, row_titles=names), frames, columns=len(VARIANCES))


def variations(
    denoise: Denoise,
    sampler: Sampler,
    images: Tensor,
    times: Tensor,
    *,
    strengths: Sequence[float],
    seed: int,
) -> Edited:
    """SDEdit (Meng et al. 2022): pictures noised by some strengths and drawn again.

    Columns: the original, then what becomes of it.  The film shows the last strength.

    Args:
        denoise: The model.
        sampler: How to step.
        images: The originals.
        times: The grid of the whole way, float64, (steps + 1,).
        strengths: Shares of t_max, each in (0, 1]; on a chain, of the nearest whole time.
        seed: Of the noise, which is the same at every strength.
    """
    seeds = seeds_of(seed, range(len(images)))
    columns = [to_uint8(images)]
    film: list[Tensor] = []
    for strength in strengths:
        t = _time(denoise.schedule, strength)
        way = starting_at(times, t)
        path = recover(denoise, sampler, images, way, noise=SeededNoise(seeds))
        end, film = _followed(path, way[1:], denoise.schedule)
        columns.append(to_uint8(end))
    titles = ["original", *(f"{100 * strength:.0f} %" for strength in strengths)]
    return Edited(strip(_rows(columns), titles=titles), film, columns=min(4, len(images)))


def completions(
    denoise: Denoise,
    sampler: Sampler,
    images: Tensor,
    mask: Tensor,
    times: Tensor,
    *,
    count: int,
    seed: int,
) -> Edited:
    """Pictures with a part drawn anew, several times (RePaint, Lugmayr et al. 2022).

    Columns: the original, what is kept of it on grey, and the completions.

    Args:
        denoise: The model.
        sampler: How to step.
        images: The originals.
        mask: bool, (1, 1, S, S), True where to draw.
        times: A grid, or `editing.resampled` from one.
        count: Completions of each picture.
        seed: Of the noise.
    """
    total = len(images)
    noise = SeededNoise(seeds_of(seed, range(count * total)))
    path = inpaint(denoise, sampler, images.repeat(count, 1, 1, 1), mask, times, noise=noise)
    end, film = _followed(path, times[1:], denoise.schedule)
    kept = to_uint8(images.masked_fill(mask, 0.0))
    columns = [to_uint8(images), kept, *torch.split(to_uint8(end), total)]
    titles = ["original", "kept", *(str(i + 1) for i in range(count))]
    # In the film too, a row belongs to a picture.
    frames = [torch.stack(torch.split(frame, total), dim=1).flatten(0, 1) for frame in film]
    return Edited(strip(_rows(columns), titles=titles), frames, columns=count)


def between_seeds(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    *,
    size: int,
    seeds: tuple[int, int],
    count: int,
    device: torch.device | str | None = None,
) -> Edited:
    """Pictures drawn from noises between those of two seeds; the film goes there and back.

    Args:
        denoise: The model.
        sampler: How to step.
        times: Decreasing, float64, (steps + 1,).
        size: Side of the pictures in pixels.
        seeds: Of the first and the last picture, as `SeededNoise` takes them.
        count: Pictures, the two ends included.
        device: Where the model is; None: the CPU.
    """
    shares = _shares(count)
    noise = BetweenSeeds(*seeds, shares)
    x = denoise.schedule(times[0]).sigma * noise(torch.empty(count, 3, size, size, device=device))
    end, _ = _followed(
        trajectory(denoise, sampler, x, times, noise=noise), times[1:], denoise.schedule
    )
    return _there_and_back(to_uint8(end), [_percent(share) for share in shares])


def between_pictures(
    denoise: Denoise, images: Tensor, times: Tensor, *, count: int, iterations: int
) -> Edited:
    """The way from one picture to another through their noises; the film goes there and back.

    Both are inverted, the noises joined by an arc, and each point of it drawn with DDIM.  The two
    ends of the strip are the originals beside what came back of them.

    Args:
        denoise: The model, unclipped.
        images: Two pictures.
        times: Decreasing, float64, (steps + 1,).
        count: Pictures drawn, the two that come back included.
        iterations: As of `inversion.invert`.
    """
    shares = _shares(count)
    latent, _ = _followed(
        invert(denoise, images, times, iterations=iterations), times.flip(0)[1:], denoise.schedule
    )
    x = torch.cat([slerp(latent[:1], latent[1:], share) for share in shares])
    end, _ = _followed(_back(denoise, x, times), times[1:], denoise.schedule)
    drawn, (first, last) = to_uint8(end), to_uint8(images)
    titles = ["original", *map(_percent, shares), "original"]
    return _there_and_back(drawn, titles, first=first, last=last)


def inversion(
    denoise: Denoise, images: Tensor, times: Tensor, *, iterations: int
) -> tuple[Edited, Tensor]:
    """Pictures, the noise that DDIM inversion finds for them, and what DDIM makes of it.

    The film goes up to the noise and back.

    Args:
        denoise: The model, unclipped.
        images: The originals.
        times: Decreasing, float64, (steps + 1,).
        iterations: As of `inversion.invert`.

    Returns:
        The figure, and the root mean squared error of each picture that came back, (B,), float64,
        in units of the data: before rounding to bytes, of a range of 2.
    """
    schedule = denoise.schedule
    up = invert(denoise, images, times, iterations=iterations)
    latent, rising = _followed(up, times.flip(0)[1:], schedule)
    end, falling = _followed(_back(denoise, latent, times), times[1:], schedule)
    columns = [to_uint8(images), visible(latent, schedule(times[0])), to_uint8(end)]
    sheet = strip(_rows(columns), titles=["original", "noise", "back"])
    film = [to_uint8(images).cpu(), *rising, *falling]
    return Edited(sheet, film, columns=min(4, len(images))), rms_error(images, end)


def _time(schedule: NoiseSchedule, share: float) -> Tensor:
    """The time at a share of t_max, above 0: float64, shape ()."""
    t = share * schedule.t_max
    if isinstance(schedule, DiscreteSchedule):
        t = max(1, round(t))  # a chain has no times between
    return torch.tensor(t, dtype=torch.float64)


def _back(denoise: Denoise, x: Tensor, times: Tensor) -> Iterable[Tensor]:
    return trajectory(denoise, DDIM(), x, times, noise=_no_noise)


def _no_noise(x: Tensor) -> Tensor:
    raise AssertionError("DDIM with eta = 0 draws no noise")


def _followed(
    path: Iterable[Tensor], times: Tensor, schedule: NoiseSchedule
) -> tuple[Tensor, list[Tensor]]:
    """Where a path ends, and moments of it as bytes on the CPU; no gradients are kept.

    Args:
        path: Images at each of `times`, (B, C, H, W).
        times: float64, (N,), N >= 1.
        schedule: To make noise visible.
    """
    kept = set(spread(len(times), MOMENTS))
    moments = []
    with torch.no_grad():
        for i, (t, x) in enumerate(zip(times, path, strict=True)):
            if i in kept:
                moments.append(visible(x, schedule(t)).cpu())
    return x, moments


def _rows(columns: Sequence[Tensor]) -> list[Tensor]:
    """Rows of a strip from its columns, each (B, 3, S, S)."""
    return list(torch.stack(list(columns), dim=1))


def _there_and_back(
    drawn: Tensor, titles: Sequence[str], *, first: Tensor | None = None, last: Tensor | None = None
) -> Edited:
    """One row of pictures, perhaps between two originals, and a film of single pictures."""
    row = [image[None] for image in (first, *drawn, last) if image is not None]
    frames = [image[None].cpu() for image in (*drawn, *drawn.flip(0)[1:])]
    return Edited(strip([torch.cat(row)], titles=titles), frames, columns=1)


def _shares(count: int) -> list[float]:
    """Evenly from 0 to 1."""
    return [i / (count - 1) for i in range(count)]


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
