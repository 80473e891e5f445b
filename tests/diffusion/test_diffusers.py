"""Agreement with diffusers' DDPM, DDIM, PNDM and LCM schedulers, all on a table of abar.

diffusers keeps its table in float32 and recovers beta from it, so it is the less exact of the
two in the cleanest steps; handed our float64 table it agrees to 1e-10.
"""

import pytest
import torch
from reference import TARGET_NAMES, Net, drawn, noisy, start, with_table

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
from kao.diffusion.samplers import PNDM, Consistency

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

VARIANCES = {"beta_tilde": "fixed_small", "beta": "fixed_large", "learned": "learned_range"}
target_names = pytest.mark.parametrize("target", TARGET_NAMES)
variances = pytest.mark.parametrize("variance", VARIANCES)


def clipping(kind, schedule, target, **options):
    return with_table(
        kind, schedule, clip_sample=True, prediction_type=TARGET_NAMES[target], **options
    )


def of_variance(variance, schedule, target):
    """A network, our denoiser of it, and diffusers' DDPM."""
    learned = variance == "learned"
    network = Net(outputs=6 if learned else 3)
    denoiser = Denoiser(network, schedule, TARGETS[target], learned_variance=learned)
    theirs = clipping(diffusers.DDPMScheduler, schedule, target, variance_type=VARIANCES[variance])
    return network, Clipped(denoiser), theirs


@torch.no_grad()
@target_names
@variances
def test_all_1000_ddpm_steps_chained_agree_to_1e_10(target, variance):
    schedule = Linear().build()
    network, denoise, theirs = of_variance(variance, schedule, target)
    generator = torch.Generator().manual_seed(5)
    y = start()
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
    schedule = Linear().build()
    network, denoise, theirs = of_variance(variance, schedule, target)
    for t in (*range(1, 1000, 37), 1000):
        assert step_difference(denoise, network, theirs, variance, t, torch.float64) < 1e-10


@torch.no_grad()
@variances
def test_twenty_ddpm_steps_agree_to_1e_10(variance):
    schedule = Linear().build()
    network, denoise, theirs = of_variance(variance, schedule, "eps")
    theirs.set_timesteps(20)
    generator = torch.Generator().manual_seed(5)
    y = start()
    times = grids.leading(schedule, 20)
    ours = trajectory(denoise, Ancestral(variance=variance), y, times, noise=drawn(5))
    for index, x in zip(theirs.timesteps, ours, strict=True):
        output = network(y, index.reshape(1).float())
        y = theirs.step(output, index, y, generator=generator).prev_sample
        assert (x - y).abs().max() < 1e-10


@torch.no_grad()
@target_names
def test_each_ddpm_step_agrees_with_stock_float32_diffusers_to_2e_4(target):
    schedule, network = Linear().build(), Net(torch.float32)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = diffusers.DDPMScheduler(prediction_type=TARGET_NAMES[target], clip_sample=True)
    for t in (*range(1, 40), *range(40, 1001, 40)):
        difference = step_difference(denoise, network, theirs, "beta_tilde", t, torch.float32)
        assert difference < 2e-4


@torch.no_grad()
@target_names
def test_the_whole_chain_stays_within_a_grey_level_of_stock_diffusers(target):
    schedule, network = Linear().build(), Net(torch.float32)
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = diffusers.DDPMScheduler(prediction_type=TARGET_NAMES[target], clip_sample=True)
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
    schedule, network = Linear().build(), Net()
    denoise = Clipped(Denoiser(network, schedule, TARGETS[target]))
    theirs = clipping(diffusers.DDIMScheduler, schedule, target, timestep_spacing=spacing)
    theirs.set_timesteps(50)
    generator = torch.Generator().manual_seed(5)
    y = start()
    ours = trajectory(denoise, DDIM(eta), y, grids.GRIDS[spacing](schedule, 50), noise=drawn(5))
    for index, x in zip(theirs.timesteps, ours, strict=True):
        output = network(y, index.reshape(1).float())
        y = theirs.step(output, index, y, eta=eta, generator=generator).prev_sample
        assert (x - y).abs().max() < 1e-10


# The eps target alone: theirs averages the network's raw outputs, which for v is another method,
# and refuses x0.
@torch.no_grad()
@pytest.mark.parametrize("steps", [10, 50])
@pytest.mark.parametrize("warm_up", ["plms", "runge_kutta"])
def test_pndm_agrees_to_1e_10(steps, warm_up):
    schedule, network = Linear().build(), Net()
    denoise = Denoiser(network, schedule, TARGETS["eps"])
    theirs = with_table(
        diffusers.PNDMScheduler,
        schedule,
        skip_prk_steps=warm_up == "plms",
        set_alpha_to_one=True,
        timestep_spacing="leading",
    )
    theirs.set_timesteps(steps)
    y, states = start(), []
    times = grids.leading(schedule, steps)
    ours = list(trajectory(denoise, PNDM(start=warm_up), y, times, noise=drawn(0)))
    for index in theirs.timesteps:
        output = network(y, index.reshape(1).float())
        y = theirs.step(output, index, y).prev_sample
        states.append(y)
    # A call of theirs is one call of the network: ours makes two in PLMS' first step, and four in
    # each of the three Runge-Kutta steps.
    whole = states[1:] if warm_up == "plms" else [*states[3:12:4], *states[12:]]
    for x, y in zip(ours, whole, strict=True):
        assert (x - y).abs().max() < 1e-10


class Boundary:
    """The scalings that theirs puts on an x_0, by which a consistency model is right at 0.

    Of its whole-number times they are float32 numbers.
    """

    def __init__(self, denoise, theirs):
        self.denoise, self.schedule, self.theirs = denoise, denoise.schedule, theirs

    def __call__(self, x, t):
        prediction = self.denoise(x, t)
        skip, out = self.theirs.get_scalings_for_boundary_condition_discrete((t - 1).long())
        return prediction._replace(x0=out * prediction.x0 + skip * x)


@torch.no_grad()
@target_names
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_lcm_agrees_to_1e_10(target, steps):
    schedule, network = Linear().build(), Net()
    theirs = clipping(diffusers.LCMScheduler, schedule, target)
    denoise = Boundary(Clipped(Denoiser(network, schedule, TARGETS[target])), theirs)
    theirs.set_timesteps(steps)
    times = torch.cat([theirs.timesteps + 1, torch.zeros(1)]).double()
    generator = torch.Generator().manual_seed(5)
    y = start()
    ours = trajectory(denoise, Consistency(), y, times, noise=drawn(5))
    for index, x in zip(theirs.timesteps, ours, strict=True):
        output = network(y, index.reshape(1).float())
        y = theirs.step(output, index, y, generator=generator).prev_sample
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
