"""Agreement with diffusers' DPM-Solver++ and UniPC schedulers, which step in log(alpha / sigma)."""

import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian
from reference import (
    TARGET_NAMES,
    Net,
    cast_to_float64,
    drawn,
    start,
    with_levels,
)

from kao.diffusion import TARGETS, Denoiser, Linear, grids, trajectory
from kao.diffusion.samplers import (
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    UniPC,
)

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed")

GRIDS = {"uniform": grids.uniform, "karras": grids.Karras()}
target_names = pytest.mark.parametrize("target", TARGET_NAMES)
grid_names = pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)


def denoiser_of(target):
    return Denoiser(Net(), Linear().build(), TARGETS[target])


def differences(denoiser, sampler, theirs, times, **options):
    """Largest difference of the states after each step, from the same noise."""
    y = start()
    ours = trajectory(denoiser, sampler, y, times, noise=drawn(5))
    found = []
    for index, t, x in zip(theirs.timesteps, times, ours, strict=False):
        y = theirs.step(denoiser.output(y, t), index, y, **options).prev_sample
        found.append((x - y).abs().max().item())
    return found


def agree(differences):
    return all(d < 1e-10 for d in differences)  # not by max, which may overlook a nan


@torch.no_grad()
@target_names
@grid_names
@pytest.mark.parametrize("steps", [1, 2, 5, 20])
def test_dpm_solver_2m_agrees_to_1e_10(target, grid, steps, monkeypatch):
    denoiser = denoiser_of(target)
    times = grid(denoiser.schedule, steps)
    kind = diffusers.DPMSolverMultistepScheduler
    theirs = with_levels(kind(prediction_type=TARGET_NAMES[target]), denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    assert agree(differences(denoiser, DPMSolver2M(), theirs, times))


@torch.no_grad()
@target_names
@grid_names
@pytest.mark.parametrize("steps", [1, 5, 20])
def test_dpm_solver_2m_sde_agrees_to_1e_10(target, grid, steps, monkeypatch):
    denoiser = denoiser_of(target)
    times = grid(denoiser.schedule, steps)
    theirs = diffusers.DPMSolverMultistepScheduler(
        prediction_type=TARGET_NAMES[target], algorithm_type="sde-dpmsolver++"
    )
    theirs = with_levels(theirs, denoiser.schedule, times)
    cast_to_float64(monkeypatch, theirs)
    generator = torch.Generator().manual_seed(5)
    found = differences(denoiser, DPMSolver2MSDE(), theirs, times, generator=generator)
    assert agree(found)


@torch.no_grad()
@grid_names
def test_dpm_solver_3m_is_diffusers_with_the_second_derivative_whole(grid, monkeypatch):
    # Theirs gives the second divided difference the weight of a second derivative, which is twice
    # as large; but for that half of the term the steps agree.
    denoiser = denoiser_of("v")
    schedule = denoiser.schedule
    times = grid(schedule, 12)
    theirs = diffusers.DPMSolverMultistepScheduler(
        prediction_type="v_prediction", solver_order=3, lower_order_final=False
    )
    theirs = with_levels(theirs, schedule, times)
    cast_to_float64(monkeypatch, theirs)
    y, memory, lam, x0 = start(), None, [], []
    for i, (t, s) in enumerate(pairwise(times)):
        here, there = schedule(t), schedule(s)
        lam.append(here.snr.log() / 2)
        x0.append(denoiser(y, t).x0)
        ours, memory = DPMSolver3M().step(denoiser, y, t, s, noise=drawn(0), memory=memory)
        y = theirs.step(denoiser.output(y, t), theirs.timesteps[i], y).prev_sample
        missing = torch.zeros(())
        if i >= 2 and s > 0:
            h = there.snr.log() / 2 - lam[i]
            slopes = [(x0[i - k] - x0[i - k - 1]) / (lam[i - k] - lam[i - k - 1]) for k in (0, 1)]
            bend = (slopes[0] - slopes[1]) / (lam[i] - lam[i - 2])
            missing = there.alpha * (h**2 / 2 - h + 1 - (-h).exp()) * bend
            assert missing.abs().max() > 1e-8
        assert (ours - y - missing).abs().max() < 1e-10


@torch.no_grad()
def test_diffusers_third_order_solver_is_of_second_order(monkeypatch):
    # On the steps where ours is of third: the reason not to follow it.
    data = Gaussian(Linear().build())
    z = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)
    errors = []
    for n in (64, 128, 256):
        share = torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 2
        log_ratio = math.log(10) + (math.log(0.05) - math.log(10)) * share
        times = torch.cat([data.schedule.time_at(-2 * log_ratio), torch.zeros(1)]).double()
        theirs = diffusers.DPMSolverMultistepScheduler(
            prediction_type="sample", solver_order=3, lower_order_final=False
        )
        theirs = with_levels(theirs, data.schedule, times)
        with monkeypatch.context() as patch:
            cast_to_float64(patch, theirs)
            y = data.path(z, times[0])
            for index, t in zip(theirs.timesteps[:-1], times, strict=False):
                y = theirs.step(data(y, t).x0, index, y).prev_sample
        errors.append((y - data.path(z, times[-2])).abs().max())
    slopes = [math.log2(a / b) for a, b in pairwise(errors)]
    assert slopes == pytest.approx([2, 2], abs=0.15)


@torch.no_grad()
@target_names
@grid_names
@pytest.mark.parametrize("steps", [1, 2, 5, 15])
def test_dpm_solver_2s_agrees_to_1e_10(target, grid, steps):
    # Theirs takes its second prediction at the next time of the grid, so it is given ours with the
    # middles between; a pair of its steps is one of ours.
    denoiser = denoiser_of(target)
    schedule = denoiser.schedule
    times = grid(schedule, steps)
    lam = schedule(times[:-1]).snr.log() / 2
    fine = torch.zeros(2 * steps, dtype=torch.float64)
    fine[:-1:2] = times[:-1]
    fine[1:-1:2] = schedule.time_at(lam[1:] + lam[:-1])
    theirs = diffusers.DPMSolverSinglestepScheduler(
        prediction_type=TARGET_NAMES[target], lower_order_final=True
    )
    theirs = with_levels(theirs, schedule, fine)
    y, states = start(), []
    ours = list(trajectory(denoiser, DPMSolver2S(), y, times, noise=drawn(0)))
    for index, t in zip(theirs.timesteps, fine, strict=False):
        y = theirs.step(denoiser.output(y, t), index, y).prev_sample
        states.append(y)
    for x, y in zip(ours, [*states[1:-1:2], states[-1]], strict=True):
        assert (x - y).abs().max() < 1e-10


@torch.no_grad()
@target_names
@grid_names
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
@pytest.mark.parametrize("steps", [2, 5, 20])
def test_unipc_agrees_to_1e_10(target, grid, variant, steps):
    denoiser = denoiser_of(target)
    times = grid(denoiser.schedule, steps)
    theirs = diffusers.UniPCMultistepScheduler(
        prediction_type=TARGET_NAMES[target], solver_type=variant
    )
    theirs = with_levels(theirs, denoiser.schedule, times)
    found = differences(denoiser, UniPC(variant=variant), theirs, times)
    # At sigma = 0 their bh1 is infinity times zero; all but the last step, then.
    assert agree(found if variant == "bh2" else found[:-1])


@torch.no_grad()
@target_names
@grid_names
@pytest.mark.parametrize("variant", ["bh1", "bh2"])
def test_unipc_with_three_predictions_agrees_to_1e_10(target, grid, variant):
    # All but the last two steps: theirs lowers the order of the last but one, which a sampler that
    # sees one step at a time cannot; without that option theirs fails at sigma = 0.
    denoiser = denoiser_of(target)
    times = grid(denoiser.schedule, 15)
    theirs = diffusers.UniPCMultistepScheduler(
        prediction_type=TARGET_NAMES[target],
        solver_type=variant,
        solver_order=3,
    )
    theirs = with_levels(theirs, denoiser.schedule, times)
    found = differences(denoiser, UniPC(p=3, variant=variant), theirs, times)
    assert agree(found[:-2])


@torch.no_grad()
@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (DPMSolver2M(), "DPMSolverMultistepScheduler"),
        (UniPC(), "UniPCMultistepScheduler"),
        (Euler(), "EulerDiscreteScheduler"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_stock_float32_pictures_agree_to_1e_4(sampler, kind):
    # Theirs with its own float32 table and sigmas, on the times that it picks itself.
    network, schedule = Net(torch.float32), Linear().build()
    denoiser = Denoiser(network, schedule, TARGETS["v"])
    theirs = getattr(diffusers, kind)(timestep_spacing="trailing", prediction_type="v_prediction")
    theirs.set_timesteps(20)
    times = torch.cat([theirs.timesteps + 1, torch.zeros(1)]).double()
    x = start(torch.float32)
    y = x * theirs.init_noise_sigma
    *_, ours = trajectory(denoiser, sampler, x, times, noise=drawn(0))
    for index in theirs.timesteps:
        scaled = theirs.scale_model_input(y, index)
        y = theirs.step(network(scaled, index.reshape(1).float()), index, y).prev_sample
    assert (ours - y).abs().max() < 1e-4
