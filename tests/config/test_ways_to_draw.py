import itertools

import pytest
import torch

from kao.config.sampling import STEPS, SamplingConfig, evenly, stepped_by
from kao.diffusion import DDIM, VE, Ancestral, Cosine, DPMSolver2M, Flow, Heun, VPCosine, grids

SOLVER = SamplingConfig(DPMSolver2M(), grids.LogSNR(), 16)


@pytest.mark.parametrize("schedule", [VPCosine(), Flow(), Cosine()])
def test_steps_of_first_order_go_along_even_times_and_enough_of_them(schedule):
    even = evenly(SOLVER, schedule.build())
    assert even == SamplingConfig(DPMSolver2M(), grids.uniform, STEPS)
    long = SamplingConfig(DPMSolver2M(), grids.LogSNR(), 40)
    assert evenly(long, schedule.build()).steps == 40


def test_a_chain_has_no_more_steps_than_times():
    schedule = Cosine(steps=20).build()
    even = evenly(SOLVER, schedule)
    assert even.steps == 20 and len(even.grid(schedule, even.steps)) == 21


def test_ve_has_no_even_times_and_keeps_its_grid():
    schedule = VE().build()
    even = evenly(SamplingConfig(Heun(), grids.Karras(), 18), schedule)
    assert even.grid == grids.Karras() and even.steps == STEPS
    assert even.grid(schedule, even.steps)[-2] < 0.01


@pytest.mark.parametrize("grid", [grids.uniform, grids.leading, grids.trailing])
def test_times_that_are_even_stay(grid):
    sampling = SamplingConfig(DDIM(), grid, 10)
    assert evenly(sampling, VPCosine().build()) is sampling


def test_another_sampler_of_first_order_takes_even_times():
    schedule = VPCosine().build()
    for sampler in (DDIM(), Ancestral()):
        assert stepped_by(sampler, SOLVER, schedule) == SamplingConfig(sampler, grids.uniform, 25)
    assert stepped_by(Heun(), SOLVER, schedule) == SamplingConfig(Heun(), grids.LogSNR(), 16)


def test_one_of_first_order_keeps_the_times_of_another():
    """Whoever has them has chosen them for that."""
    sampling = SamplingConfig(DDIM(), grids.LogSNR(), 16)
    assert stepped_by(Ancestral(), sampling, VPCosine().build()).grid == grids.LogSNR()


def test_even_times_draw_better_by_ddim_than_those_of_a_solver():
    curve = VPCosine().build()
    spread = {}
    for name, sampling in {"solver": SOLVER, "even": evenly(SOLVER, curve)}.items():
        times = sampling.grid(curve, sampling.steps)
        # Of Gaussian data of standard deviation 1/2, on which DDIM is a product of factors.
        scale = torch.ones((), dtype=torch.float64)
        for t, s in itertools.pairwise(times):
            here, there = curve(t), curve(s)
            variance = here.alpha**2 / 4 + here.sigma**2
            x0, eps = here.alpha / 4 / variance, here.sigma / variance
            scale = scale * (there.alpha * x0 + there.sigma * eps)
        spread[name] = (scale * curve(times[0]).sigma).item()
    assert abs(spread["even"] - 0.5) < abs(spread["solver"] - 0.5) / 2
