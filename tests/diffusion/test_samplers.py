import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian, scalar
from torch import nn

from kao.diffusion import (
    DDIM,
    SAMPLERS,
    SCHEDULES,
    TARGETS,
    VE,
    Ancestral,
    Clipped,
    Denoiser,
    Flow,
    Heun,
    Linear,
    SeededNoise,
    VPCosine,
    grids,
    sample,
    trajectory,
)
from kao.diffusion.samplers.ancestral import forward_variance
from kao.errors import ConfigError

PURE_NOISE = ("vp_cosine", "flow")
VARIANTS = {name: sampler() for name, sampler in SAMPLERS.items()} | {
    "ddpm-beta": Ancestral(variance="beta"),
    "ddim-eta-half": DDIM(eta=0.5),
    "ddim-eta-one": DDIM(eta=1.0),
}
COURSES = {
    "ve": (VE().build(), lambda n: torch.logspace(1, math.log10(0.05), n + 1).double()),
    "flow": (Flow().build(), lambda n: torch.linspace(1, 0.05, n + 1).double()),
    "vp_cosine": (VPCosine().build(), lambda n: torch.linspace(1, 0.05, n + 1).double()),
}
variants = pytest.mark.parametrize("sampler", VARIANTS.values(), ids=VARIANTS)
courses = pytest.mark.parametrize(("schedule", "times"), COURSES.values(), ids=COURSES)


def no_noise(x):
    raise AssertionError("a deterministic sampler asked for noise")


def deterministic(sampler) -> bool:
    data = Gaussian(Flow().build())
    try:
        sampler.step(data, torch.zeros(1, 1, 1, 1), scalar(0.9), scalar(0.5), noise=no_noise)
    except AssertionError:
        return False
    return True


def slopes(error, counts):
    errors = torch.tensor([error(n) for n in counts])
    return (errors[:-1] / errors[1:]).log2()


def end_of(denoise, sampler, x, times, noise):
    for step in trajectory(denoise, sampler, x, times, noise=noise):
        x = step
    return x


@courses
@pytest.mark.parametrize(
    "sampler",
    [s for s in VARIANTS.values() if deterministic(s)],
    ids=[n for n, s in VARIANTS.items() if deterministic(s)],
)
def test_the_path_error_of_deterministic_samplers_falls_with_the_claimed_order(
    sampler, schedule, times
):
    data = Gaussian(schedule)
    z = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)

    def error(n):
        grid = times(n)
        end = end_of(data, sampler, data.path(z, grid[0]), grid, no_noise)
        return (end - data.path(z, grid[-1])).abs().max()

    assert slopes(error, [64, 128, 256, 512]).tolist() == pytest.approx(
        [sampler.order] * 3, abs=0.15
    )


@courses
@variants
def test_the_error_of_the_law_falls_with_the_claimed_order(sampler, schedule, times):
    # On Gaussian data a step is affine in (x, noise); three probes give its coefficients, and
    # these carry the mean and the variance without a random number.
    data = Gaussian(schedule)
    x = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    unit = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).reshape(3, 1, 1, 1)

    def error(n):
        grid = times(n)
        mean, variance = data.law(grid[0])
        for t, s in pairwise(grid):
            probes, _ = sampler.step(data, x, t, s, noise=lambda x: unit)
            shift, slope, spread = probes[0], probes[1] - probes[0], probes[2] - probes[0]
            mean, variance = shift + slope * mean, slope**2 * variance + spread**2
        exact_mean, exact_variance = data.law(grid[-1])
        return torch.maximum((mean - exact_mean).abs(), (variance - exact_variance).abs()).item()

    assert slopes(error, [64, 128, 256]).tolist() == pytest.approx([sampler.order] * 2, abs=0.15)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)

    def forward(self, x, label, condition):
        return self.conv(x).tanh() + (label / 500).sin().reshape(-1, 1, 1, 1)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("target", TARGETS)
@variants
def test_every_schedule_target_and_sampler_compose(sampler, schedule, target):
    if (target, schedule) in {("eps", name) for name in PURE_NOISE}:
        with pytest.raises(ConfigError, match="v or velocity"):
            Denoiser(Net(), SCHEDULES[schedule]().build(), TARGETS[target])
        return
    entry = TARGETS[target]
    row = entry() if isinstance(entry, type) else entry
    denoiser = Denoiser(Net(), SCHEDULES[schedule]().build(), row, sigma_data=0.5)
    for grid in (grids.uniform, grids.karras):
        times = grid(denoiser.schedule, 6)
        x = sample(Clipped(denoiser), sampler, times, (3, 4, 4), seeds=[0, 1])
        assert x.shape == (2, 3, 4, 4) and x.dtype == torch.float32
        assert x.isfinite().all()
        assert sample(denoiser, sampler, times, (3, 4, 4), seeds=[0, 1]).isfinite().all()


@variants
def test_sampling_ends_in_the_law_of_the_data(sampler):
    data = Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 250)
    x = sample(data, sampler, times, (1, 64, 64), seeds=range(4))
    assert x.mean().item() == pytest.approx(data.mean, abs=0.02)
    assert x.std().item() == pytest.approx(data.std, abs=0.02)


@pytest.mark.parametrize("schedule", ["linear", "ve"])
def test_sampling_starts_from_the_seeds_noise_at_the_first_level(schedule):
    data = Gaussian(SCHEDULES[schedule]().build())
    times = grids.karras(data.schedule, 5)
    noise = SeededNoise([3, 4])
    x = data.schedule(times[0]).sigma * noise(torch.empty(2, 1, 4, 4))
    expected = end_of(data, Ancestral(), x, times, noise)
    assert torch.equal(sample(data, Ancestral(), times, (1, 4, 4), seeds=[3, 4]), expected)


@variants
def test_a_picture_depends_on_its_seed_and_not_on_its_batch(sampler):
    data = Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 5)
    together = sample(data, sampler, times, (3, 4, 4), seeds=[11, 12, 13])
    alone = sample(data, sampler, times, (3, 4, 4), seeds=[12])
    assert torch.equal(together[1:2], alone)
    assert not torch.equal(together[0], together[1])


@variants
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_denoiser_is_never_asked_about_time_zero(sampler, schedule):
    data = Gaussian(SCHEDULES[schedule]().build())
    asked = []

    class Spy:
        schedule = data.schedule

        def __call__(self, x, t):
            asked.append(t.item())
            return data(x, t)

    sample(Spy(), sampler, grids.uniform(data.schedule, 4), (1, 2, 2), seeds=[0])
    assert min(asked) > 0 and len(asked) >= 4


@variants
def test_no_noise_is_drawn_on_the_last_step(sampler):
    data = Gaussian(Linear().build())
    x = torch.ones(1, 1, 2, 2)
    sampler.step(data, x, scalar(1), scalar(0), noise=no_noise)


@variants
def test_a_trajectory_yields_one_image_a_step(sampler):
    data = Gaussian(Flow().build())
    x = torch.zeros(2, 1, 2, 2)
    states = list(
        trajectory(data, sampler, x, grids.uniform(data.schedule, 7), noise=torch.zeros_like)
    )
    assert len(states) == 7
    assert all(s.shape == x.shape and s.dtype == torch.float32 for s in states)


def test_sampling_builds_no_graph():
    denoiser = Denoiser(Net(), Flow().build(), TARGETS["v"])
    x = sample(denoiser, DDIM(), grids.uniform(denoiser.schedule, 2), (3, 4, 4), seeds=[0])
    assert not x.requires_grad


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_ddim_with_eta_one_is_the_ancestral_sampler(schedule):
    data = Gaussian(SCHEDULES[schedule]().build())
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    for high, low in ((1.0, 0.7), (0.5, 0.2), (0.1, 0.0)):
        t, s = scalar(high * data.schedule.t_max), scalar(low * data.schedule.t_max)
        ddim, _ = DDIM(eta=1.0).step(data, x, t, s, noise=torch.ones_like)
        ddpm, _ = Ancestral().step(data, x, t, s, noise=torch.ones_like)
        torch.testing.assert_close(ddim, ddpm, rtol=1e-9, atol=1e-9)


def test_ancestral_variances_are_beta_and_its_posterior_share():
    schedule = Linear().build()
    data = Gaussian(schedule)
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    x = torch.zeros(1, 1, 1, 1, dtype=torch.float64)
    for t in (2, 500, 1000):
        here, there = scalar(t), scalar(t - 1)
        beta = betas[t - 1].item()
        assert forward_variance(schedule(here), schedule(there)).item() == pytest.approx(beta)
        share = (schedule(there).sigma / schedule(here).sigma).item() ** 2
        for variance, expected in (("beta", beta), ("beta_tilde", beta * share)):
            step = Ancestral(variance=variance).step
            mean, _ = step(data, x, here, there, noise=torch.zeros_like)
            moved, _ = step(data, x, here, there, noise=torch.ones_like)
            assert ((moved - mean) ** 2).item() == pytest.approx(expected, rel=1e-9)


def test_heun_on_ve_is_algorithm_1_of_karras_et_al():
    data = Gaussian(VE().build())
    times = grids.karras(data.schedule, 18)
    x = 80 * torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    ours = end_of(data, Heun(), x, times, no_noise)
    for t, s in pairwise(times):
        d = (x - data(x, t).x0) / t
        euler = x + (s - t) * d
        if s > 0:
            d = (d + (euler - data(euler, s).x0) / s) / 2
        x = x + (s - t) * d
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


def test_heun_on_flow_is_the_trapezoid_on_its_velocity():
    data = Gaussian(Flow().build())
    times = grids.uniform(data.schedule, 10)
    x = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)

    def velocity(x, t):
        x0, eps = data(x, t)
        return eps - x0

    ours = end_of(data, Heun(), x, times, no_noise)
    for t, s in pairwise(times):
        d = velocity(x, t)
        if s > 0:
            d = (d + velocity(x + (s - t) * d, s)) / 2
        x = x + (s - t) * d
    torch.testing.assert_close(ours, x, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_an_eta_outside_its_range_is_refused(eta):
    with pytest.raises(ConfigError, match=r"sampler\.eta"):
        DDIM(eta=eta)


def test_another_variance_is_refused():
    with pytest.raises(ConfigError, match="small"):
        Ancestral(variance="small")
