import itertools
import math

import pytest
import torch

from kao.config import dump
from kao.config.sampling import (
    STEPS,
    GuidanceConfig,
    SamplingConfig,
    described,
    evenly,
    refuse_uneven,
    stepped_by,
)
from kao.diffusion import (
    DDIM,
    PNDM,
    VE,
    Ancestral,
    Clip,
    Cosine,
    DPMSolver2M,
    Flow,
    Heun,
    VPCosine,
    grids,
)
from kao.errors import ConfigError

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


def test_pndm_takes_even_times_too():
    schedule = VPCosine().build()
    assert stepped_by(PNDM(), SOLVER, schedule) == SamplingConfig(PNDM(), grids.uniform, 25)
    first = SamplingConfig(DDIM(), grids.leading, 50)
    assert stepped_by(PNDM(), first, schedule) == SamplingConfig(PNDM(), grids.leading, 50)


@pytest.mark.parametrize(
    "grid",
    [grids.Karras(), grids.LogSNR(), grids.Learned(), grids.Spaced(ratios="karras")],
    ids=str,
)
def test_pndm_is_refused_on_steps_that_are_not_even(grid):
    with pytest.raises(ConfigError, match=r'"pndm" .* equal size in t.*grid = "uniform"'):
        refuse_uneven(SamplingConfig(PNDM(), grid, 50))
    refuse_uneven(SamplingConfig(DPMSolver2M(), grid, 2))


@pytest.mark.parametrize(
    "grid", [grids.uniform, grids.leading, grids.trailing, grids.linspace, grids.Spaced()]
)
def test_pndm_is_refused_in_fewer_steps_than_its_formula_has_predictions(grid):
    with pytest.raises(ConfigError, match=r"steps = 3: take 4 steps or more"):
        refuse_uneven(SamplingConfig(PNDM(), grid, 3))
    refuse_uneven(SamplingConfig(PNDM(), grid, 4))


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


@pytest.mark.parametrize(
    ("way", "words"),
    [
        (SamplingConfig(), "ddim, uniform, 25 steps"),
        (
            SamplingConfig(DDIM(eta=0.5), grids.Karras(rho=5.0), 5),
            "ddim eta 0.5, karras rho 5.0, 5 steps",
        ),
        (
            SamplingConfig(threshold=Clip(limit=0.5), guidance=GuidanceConfig(scale=2.0)),
            "ddim, uniform, 25 steps, threshold.limit 0.5, guidance.scale 2.0",
        ),
        (SamplingConfig(threshold=None), "ddim, uniform, 25 steps, threshold.kind none"),
        (
            SamplingConfig(guidance=GuidanceConfig(scale=2.0, interval=(0.5, math.inf))),
            "ddim, uniform, 25 steps, guidance.scale 2.0, guidance.interval 0.5..inf",
        ),
        (SamplingConfig(grid=grids.Learned((0.0, 0.5, 1.0))), "ddim, learned, 25 steps"),
    ],
)
def test_a_way_is_described_by_what_is_not_the_default(way, words):
    assert described(dump(way)) == words
