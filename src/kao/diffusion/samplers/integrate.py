"""Run a sampler over a grid of times."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from kao.diffusion.denoiser import Denoise
from kao.diffusion.noise import Noise, SeededNoise
from kao.diffusion.samplers.base import Sampler


def trajectory(
    denoise: Denoise, sampler: Sampler, x: Tensor, times: Tensor, *, noise: Noise
) -> Iterator[Tensor]:
    """Yield x at times[1], times[2], ..., times[-1].

    A generator, so that progress bars, previews, films and early stops are loops in the
    caller and not callbacks in here.  Gradients flow if the caller lets them.

    Args:
        denoise: Predicts (x_0, eps); carries the schedule.
        sampler: How to step.
        x: Images at times[0], (B, C, H, W): usually schedule(times[0]).sigma * noise.
        times: Decreasing times, float64 on the CPU, (steps + 1,), from `grids`.
        noise: Source of randomness of the steps.

    Yields:
        Images, (B, C, H, W), in the dtype and on the device of `x`.
    """
    memory = None
    for t, s in pairwise(times):
        x, memory = sampler.step(denoise, x, t, s, noise=noise, memory=memory)
        yield x


def sample(
    denoise: Denoise,
    sampler: Sampler,
    times: Tensor,
    shape: tuple[int, int, int],
    *,
    seeds: Sequence[int],
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw one batch of images from noise, without gradients.

    The images are those of the seeds, whatever the batch.  The network is used as it is: put
    it in eval mode first.

    Args:
        denoise: Predicts (x_0, eps); carries the schedule.
        sampler: How to step.
        times: Decreasing times, float64 on the CPU, (steps + 1,), from `grids`.
        shape: (C, H, W) of one image.
        seeds: One per image, from `seeds_of`; they make the batch.
        device: Where the images are; None: the CPU.

    Returns:
        Images at times[-1], (B, C, H, W), float32, in the units of the data, not clamped.
    """
    noise = SeededNoise(seeds)
    with torch.no_grad():
        blank = torch.empty(len(seeds), *shape, device=device, dtype=torch.float32)
        x = denoise.schedule(times[0]).sigma * noise(blank)
        for step in trajectory(denoise, sampler, x, times, noise=noise):
            x = step
    return x
