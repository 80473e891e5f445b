"""Agreement with diffusers' Euler and Heun schedulers: EDM's, Stable Diffusion's, and of flows.

Churn is not compared: theirs adds the noise after the network was asked, so that the prediction
is of other images than those it moves.  `test_samplers.py` holds ours to the paper's algorithm 2.
"""

import pytest
import torch
from reference import Net, cast_to_float64, drawn, start, with_levels

from kao.diffusion import EDM, TARGETS, VE, Denoiser, Flow, Linear, grids, trajectory
from kao.diffusion.samplers import Consistency, Euler, EulerAncestral, Heun

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

GRIDS = {"uniform": grids.uniform, "karras": grids.Karras()}
NAMES = {"eps": "epsilon", "v": "v_prediction"}
grid_names = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
step_counts = pytest.mark.parametrize("steps", [1, 2, 12])


def assert_agreement(denoiser, sampler, theirs, times, **options):
    """Whole trajectories to 1e-10, for a scheduler that holds x / alpha."""
    alpha, sigma = denoiser.schedule(times)
    x = sigma[0] * start()
    y = x / alpha[0]
    ours = trajectory(denoiser, sampler, x, times, noise=drawn(5))
    for i, x in enumerate(ours):
        # Theirs makes x_t of x_t / alpha by its own formula.
        scaled = theirs.scale_model_input(y, theirs.timesteps[i])
        output = denoiser.output(scaled, times[i])
        y = theirs.step(output, theirs.timesteps[i], y, **options).prev_sample
        assert (x - alpha[i + 1] * y).abs().max() < 1e-10


@torch.no_grad()
@grid_names
@step_counts
@pytest.mark.parametrize("target", NAMES)
def test_euler_agrees_to_1e_10(target, grid, steps, monkeypatch):
    denoiser = Denoiser(Net(), Linear().build(), TARGETS[target])
    times = grid(denoiser.schedule, steps)
    theirs = diffusers.EulerDiscreteScheduler(prediction_type=NAMES[target])
    theirs = with_levels(theirs, denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    assert_agreement(denoiser, Euler(), theirs, times)


@torch.no_grad()
@grid_names
@step_counts
@pytest.mark.parametrize("target", NAMES)
def test_euler_ancestral_agrees_to_1e_10(target, grid, steps, monkeypatch):
    denoiser = Denoiser(Net(), Linear().build(), TARGETS[target])
    times = grid(denoiser.schedule, steps)
    theirs = diffusers.EulerAncestralDiscreteScheduler(prediction_type=NAMES[target])
    theirs = with_levels(theirs, denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    generator = torch.Generator().manual_seed(5)
    assert_agreement(denoiser, EulerAncestral(), theirs, times, generator=generator)


@torch.no_grad()
@grid_names
@step_counts
def test_euler_on_edm_agrees_to_1e_10(grid, steps, monkeypatch):
    denoiser = Denoiser(Net(), VE().build(), EDM(0.5), sigma_data=0.5)
    times = grid(denoiser.schedule, steps)
    theirs = with_levels(diffusers.EDMEulerScheduler(), denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    y = 80 * start()
    for i, x in enumerate(trajectory(denoiser, Euler(), y, times, noise=drawn(0))):
        y = theirs.step(denoiser.output(y, times[i]), theirs.timesteps[i], y).prev_sample
        assert (x - y).abs().max() < 1e-10


# On alpha = 1 alone: on others theirs is the trapezoid in sigma / alpha, ours that along
# (alpha, sigma), two methods of second order; so is flow's below.
@torch.no_grad()
@grid_names
@step_counts
def test_heun_agrees_to_1e_10(grid, steps):
    denoiser = Denoiser(Net(), VE().build(), TARGETS["x0"], sigma_data=0.5)
    times = grid(denoiser.schedule, steps)
    theirs = diffusers.HeunDiscreteScheduler(prediction_type="sample")
    theirs = with_levels(theirs, denoiser.schedule, times, twice=True)
    assert heun_difference(denoiser, theirs, times, 80 * start()) < 1e-10


@torch.no_grad()
@step_counts
def test_heun_on_a_flow_agrees_to_1e_10(steps, monkeypatch):
    denoiser = Denoiser(Net(), Flow().build(), TARGETS["velocity"])
    times = grids.uniform(denoiser.schedule, steps)
    theirs = diffusers.FlowMatchHeunDiscreteScheduler()
    theirs = with_levels(theirs, denoiser.schedule, times, twice=True)
    cast_to_float64(monkeypatch, theirs)
    assert heun_difference(denoiser, theirs, times, start()) < 1e-10


def heun_difference(denoiser, theirs, times, x):
    """Of the pictures: theirs asks for one output a step, ours for two."""
    y = x
    *_, ours = trajectory(denoiser, Heun(), x, times, noise=drawn(0))
    for t in theirs.timesteps:
        y = theirs.step(denoiser.output(y, t), t, y).prev_sample
    return (ours - y).abs().max().item()


@torch.no_grad()
@step_counts
@pytest.mark.parametrize("sampler", [Euler(), Consistency()], ids=["euler", "lcm"])
def test_euler_and_renoising_on_a_flow_agree_to_1e_10(sampler, steps, monkeypatch):
    # Their stochastic option predicts the image and puts noise back on it, as ours named lcm.
    denoiser = Denoiser(Net(), Flow().build(), TARGETS["velocity"])
    times = grids.uniform(denoiser.schedule, steps)
    theirs = diffusers.FlowMatchEulerDiscreteScheduler(
        stochastic_sampling=isinstance(sampler, Consistency)
    )
    theirs = with_levels(theirs, denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    generator = torch.Generator().manual_seed(5)
    y = start()
    for i, x in enumerate(trajectory(denoiser, sampler, y, times, noise=drawn(5))):
        output = denoiser.output(y, times[i])
        y = theirs.step(output, theirs.timesteps[i], y, generator=generator).prev_sample
        assert (x - y).abs().max() < 1e-10
