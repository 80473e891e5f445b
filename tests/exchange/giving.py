"""Networks with random weights that say something, as they leave the house."""

from dataclasses import replace

import torch

from kao.config import RunConfig
from kao.diffusion import SeededNoise, sample, seeds_of
from kao.exchange.trained import Trained
from kao.networks import UNetConfig

SMALL = UNetConfig(width=8, levels=(1, 2), blocks=1, attention=(8,), heads=1, groups=4, dropout=0.0)


def trained(config, *, size=16, steps=10):
    """A network of that configuration, whose weights are random everywhere."""
    config = replace(
        config,
        data=replace(config.data, size=size),
        sampling=replace(config.sampling, steps=steps),
    )
    denoiser = config.build_denoiser().eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for parameter in denoiser.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return Trained(config=config, denoiser=denoiser, name="small", kind="ema-0.999", images=640)


def config_of(schedule, target, *, network=SMALL, **more):
    return replace(RunConfig(), network=network, schedule=schedule, target=target, **more)


def noise_of(count, size=16):
    return SeededNoise(seeds_of(0, range(count)))(torch.empty(count, 3, size, size))


def drawn(given, *, count=2, sampler=None, grid=None, steps=None):
    """Pictures of seed 0, in [-1, 1] and beyond, as kao draws them."""
    config = given.config
    sampling = replace(
        config.sampling,
        sampler=sampler or config.sampling.sampler,
        grid=grid or config.sampling.grid,
        steps=steps or config.sampling.steps,
    )
    return sample(
        config.wrap(given.denoiser),
        sampling.sampler,
        sampling.grid(given.schedule, sampling.steps),
        (3, given.size, given.size),
        seeds=seeds_of(0, range(count)),
    )
