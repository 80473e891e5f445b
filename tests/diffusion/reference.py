"""What the comparisons with diffusers share.

diffusers keeps tables and sigmas in float32, and some of its schedulers cast images to float32 in
each step.  Handed our float64 levels, and with float64 in the place of that cast, what is left is
the mathematics, which is compared to 1e-10.
"""

import sys

import torch
from torch import Tensor, nn

from kao.diffusion import NoiseSchedule

TARGET_NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
"""Our targets in diffusers' words."""


class Net(nn.Module):
    """A fixed convolution that knows the time."""

    def __init__(self, dtype=torch.float64, *, outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.25, generator=generator)
        self.to(dtype)

    def forward(self, x, label, condition=None):
        wave = 0.3 * (label / 300).cos().reshape(-1, 1, 1, 1)
        return self.conv(x.to(self.conv.weight)).tanh() + wave.to(x)


class Double:
    """The module `torch`, in which float32 is float64."""

    float32 = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


def cast_to_float64(monkeypatch, theirs) -> None:
    """Let a scheduler's casts to float32 be casts to float64, until the test ends."""
    monkeypatch.setattr(sys.modules[type(theirs).__module__], "torch", Double())


def drawn(seed):
    """Noise in the order and from the generator that diffusers draws it."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def with_table(kind, schedule, **options):
    """A diffusers scheduler with our float64 table."""
    made = kind(beta_schedule="linear", **options)
    made.alphas_cumprod = schedule.abar[1:]
    return made


def with_levels(theirs, schedule: NoiseSchedule, times: Tensor, *, twice: bool = False):
    """Put our times, and the levels there as their sigmas, into a scheduler; returns it.

    Args:
        theirs: A scheduler whose `sigmas` are sigma / alpha, or sigma for one of flows.
        schedule: Whose levels.
        times: Decreasing, ending at 0.
        twice: For Heun's, which holds each inner level twice.
    """
    theirs.set_timesteps(len(times) - 1)
    flow = "Flow" in type(theirs).__name__
    alpha, sigma = schedule(times)
    sigmas, timesteps = (sigma if flow else sigma / alpha), times[:-1]
    if twice:
        inner = sigmas[1:-1].repeat_interleave(2)
        sigmas = torch.cat([sigmas[:1], inner, sigmas[-1:]])
        timesteps = torch.cat([timesteps[:1], timesteps[1:].repeat_interleave(2)])
    theirs.sigmas, theirs.timesteps = sigmas, timesteps
    theirs.is_scale_input_called = True
    return theirs


def start(dtype=torch.float64):
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3), dtype=dtype)


def noisy(schedule, t, dtype):
    generator = torch.Generator().manual_seed(t)
    x0 = torch.rand(2, 3, 6, 6, generator=generator, dtype=dtype) * 2 - 1
    eps = torch.randn(2, 3, 6, 6, generator=generator, dtype=dtype)
    alpha, sigma = schedule(torch.tensor(float(t), dtype=torch.float64))
    return alpha * x0 + sigma * eps
