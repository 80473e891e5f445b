"""Agreement with diffusers' DDPM and DDIM schedulers.

diffusers keeps its table in float32 and recovers beta from it, so it is the less exact of the
two in the cleanest steps; handed our float64 table it agrees to 1e-10.
"""

import pytest
import torch
from torch import nn

from kao.diffusion import (
    DDIM,
    TARGETS,
    Ancestral,
    Clipped,
    Cosine,
    Denoiser,
    Linear,
    ScaledLinear,
    grids,
    trajectory,
)

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

NAMES = {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}
VARIANCES = {"beta_tilde": "fixed_small", "beta": "fixed_large"}
target_names = pytest.mark.parametrize("target", NAMES)
variances = pytest.mark.parametrize("variance", VARIANCES)


class Net(nn.Module):
    """A fixed convolution that knows the time."""

    def __init__(self, dtype):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.25, generator=generator)
        self.to(dtype)

    def forward(self, x, label, condition=None):
        return self.conv(x).tanh() + 0.3 * (label / 300).cos().reshape(-1, 1, 1, 1).to(x)


def drawn(seed):
    """Noise in the order and from the generator that diffusers draws it."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def scheduler(kind, schedule, **options):
    """A diffusers scheduler with our float64 table."""
    made = kind(beta_schedule="linear", clip_sample=True, **options)
    made.alphas_cumprod = schedule.abar[1:]
    return made


def start(dtype):
    return torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(3), dtype=dtype)


def noisy(schedule, t, dtype):
    generator = torch.Generator().manual_seed(t)
    x0 = torch.rand(2, 3, 6, 6, generator=generator, dtype=dtype) * 2 - 1
    eps = torch.randn(2, 3, 6, 6, generator=generator, dtype=dtype)
    alpha, sigma = schedule(torch.tensor(float(t), dtype=torch.float64))
    return alpha * x0 + sigma * eps


@torch.no_grad()
@target_names
@variances
def test_all_1000_ddpm_steps_chained_agree_to_1e_10(target, variance):
    schedule, network = Linear().build(), Net(torch.float64)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = scheduler(
        diffusers.DDPMScheduler,
        schedule,
        prediction_type=NAMES[target],
        variance_type=VARIANCES[variance],
    )
    generator = torch.Generator().manual_seed(5)
    y = start(torch.float64)
    ours = trajectory(
        denoise, Ancestral(variance=variance), y, grids.uniform(schedule, 1000), noise=drawn(5)
    )
    for index, x in zip(range(999, -1, -1), ours, strict=True):
        output = network(y, torch.tensor([float(index)]))
        y = theirs.step(output, index, y, generator=generator).prev_sample
        assert (x - y).abs().max() < 1e-10


@torch.no_grad()
@target_names
@variances
def test_each_ddpm_step_agrees_to_1e_10(target, variance):
    schedule, network = Linear().build(), Net(torch.float64)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = scheduler(
        diffusers.DDPMScheduler,
        schedule,
        prediction_type=NAMES[target],
        variance_type=VARIANCES[variance],
    )
    for t in (*range(1, 1000, 37), 1000):
        assert step_difference(denoise, network, theirs, variance, t, torch.float64) < 1e-10


@torch.no_grad()
@target_names
def test_each_ddpm_step_agrees_with_stock_float32_diffusers_to_2e_4(target):
    schedule, network = Linear().build(), Net(torch.float32)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = diffusers.DDPMScheduler(prediction_type=NAMES[target], clip_sample=True)
    for t in (*range(1, 40), *range(40, 1001, 40)):
        difference = step_difference(denoise, network, theirs, "beta_tilde", t, torch.float32)
        assert difference < 2e-4


@torch.no_grad()
@target_names
def test_the_whole_chain_stays_within_a_grey_level_of_stock_diffusers(target):
    schedule, network = Linear().build(), Net(torch.float32)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = diffusers.DDPMScheduler(prediction_type=NAMES[target], clip_sample=True)
    generator = torch.Generator().manual_seed(5)
    y = start(torch.float32)
    times = grids.uniform(schedule, 1000)
    *_, x = trajectory(denoise, Ancestral(), y, times, noise=drawn(5))
    for index in range(999, -1, -1):
        output = network(y, torch.tensor([float(index)]))
        y = theirs.step(output, index, y, generator=generator).prev_sample
    assert (x - y).abs().max() < 2 / 255


def step_difference(denoise, network, theirs, variance, t, dtype):
    x = noisy(denoise.schedule, t, dtype)
    now, then = torch.tensor([t, t - 1], dtype=torch.float64)
    ours, _ = Ancestral(variance=variance).step(denoise, x, now, then, noise=drawn(t))
    assert ours.dtype == dtype
    output = network(x, torch.tensor([t - 1.0]))
    generator = torch.Generator().manual_seed(t)
    return (ours - theirs.step(output, t - 1, x, generator=generator).prev_sample).abs().max()


@torch.no_grad()
@target_names
@pytest.mark.parametrize("eta", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("spacing", ["leading", "trailing"])
def test_fifty_ddim_steps_agree_to_1e_10(target, eta, spacing):
    schedule, network = Linear().build(), Net(torch.float64)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = scheduler(
        diffusers.DDIMScheduler,
        schedule,
        prediction_type=NAMES[target],
        timestep_spacing=spacing,
    )
    theirs.set_timesteps(50)
    generator = torch.Generator().manual_seed(5)
    y = start(torch.float64)
    ours = trajectory(denoise, DDIM(eta), y, grids.GRIDS[spacing](schedule, 50), noise=drawn(5))
    for index, x in zip(theirs.timesteps, ours, strict=True):
        output = network(y, index.reshape(1).float())
        y = theirs.step(output, index, y, eta=eta, generator=generator).prev_sample
        assert (x - y).abs().max() < 1e-10


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 16, 30, 50, 100, 250, 333, 999, 1000])
def test_grids_are_diffusers_timesteps_counted_from_one(spacing, steps):
    theirs = diffusers.DDIMScheduler(timestep_spacing=spacing)
    theirs.set_timesteps(steps)
    ours = grids.GRIDS[spacing](Linear().build(), steps)
    assert (ours[:-1] - 1).tolist() == theirs.timesteps.tolist()


@pytest.mark.parametrize(
    ("config", "name", "betas"),
    [
        (Linear(), "linear", (1e-4, 0.02)),
        (ScaledLinear(), "scaled_linear", (0.00085, 0.012)),
        (Cosine(), "squaredcos_cap_v2", (1e-4, 0.02)),
        (Linear(steps=250), "linear", (1e-4, 0.02)),
        (Cosine(steps=250), "squaredcos_cap_v2", (1e-4, 0.02)),
    ],
    ids=lambda value: str(value),
)
def test_tables_are_diffusers_to_float32(config, name, betas):
    theirs = diffusers.DDPMScheduler(
        config.steps, beta_schedule=name, beta_start=betas[0], beta_end=betas[1]
    )
    ours = config.build().abar[1:]
    torch.testing.assert_close(ours.float(), theirs.alphas_cumprod, rtol=2e-5, atol=1e-12)
