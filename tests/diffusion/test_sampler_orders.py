"""How fast each sampler's error falls, on data whose path and law are known.

A slope is the base-2 logarithm of what halving the steps' size divides the error by.
"""

import math

import pytest
import torch
from gaussian import EndOfPath, Gaussian, KnownVariance, law_after

from kao.diffusion import SCHEDULES, VE, Flow, Linear, VPCosine, grids, trajectory
from kao.diffusion.samplers import (
    DDIM,
    PNDM,
    Ancestral,
    Consistency,
    DPMSolver2M,
    DPMSolver2MSDE,
    DPMSolver2S,
    DPMSolver3M,
    Euler,
    EulerAncestral,
    Heun,
    UniPC,
)


def in_time(schedule, start, end):
    """Equal steps in t."""
    return schedule, lambda n: torch.linspace(start, end, n + 1, dtype=torch.float64)


def gently(schedule):
    """From sigma / alpha = 10 to 0.05, in log steps that grow from nothing.

    The first is of size 1/n^2, so that the lower order of a multi-step method's start is unseen.
    """

    def times(n):
        share = torch.linspace(0, 1, n + 1, dtype=torch.float64) ** 2
        return schedule.time_at(-2 * torch.lerp(scalar_log(10), scalar_log(0.05), share))

    return schedule, times


def scalar_log(value):
    return torch.tensor(math.log(value), dtype=torch.float64)


PLAIN = {
    "ve": (VE().build(), lambda n: torch.logspace(1, math.log10(0.05), n + 1).double()),
    "flow-from-pure-noise": in_time(Flow().build(), 1, 0.05),
    "vp_cosine-from-pure-noise": in_time(VPCosine().build(), 1, 0.05),
}
GENTLE = {
    "ve": gently(VE().build()),
    "flow": gently(Flow().build()),
    "vp_cosine": gently(VPCosine().build()),
    "linear": gently(Linear().build()),
    "linear-zero-terminal": gently(Linear(zero_terminal_snr=True).build()),
}
ONE_STEP = {
    "ddim": DDIM(),
    "euler": Euler(),
    "heun": Heun(),
    "dpm++2s": DPMSolver2S(),
    "euler_a-eta-zero": EulerAncestral(eta=0.0),
}
MULTI_STEP = {
    "pndm": PNDM(),
    "pndm-runge-kutta": PNDM(start="runge_kutta"),
    "dpm++2m": DPMSolver2M(),
    "dpm++3m": DPMSolver3M(),
    "unipc": UniPC(),
    "unipc-bh1": UniPC(variant="bh1"),
}
# Churn is a share of each step, so for a limit to exist it shrinks with the steps (S_churn = 4).
RANDOM = {
    "ddpm": lambda n: Ancestral(),
    "ddpm-beta": lambda n: Ancestral(variance="beta"),
    "ddim-eta-half": lambda n: DDIM(eta=0.5),
    "ddim-eta-one": lambda n: DDIM(eta=1.0),
    "dpm++2m_sde": lambda n: DPMSolver2MSDE(),
    "euler_a": lambda n: EulerAncestral(),
    "euler_a-eta-half": lambda n: EulerAncestral(eta=0.5),
    "euler-churned": lambda n: Euler(churn=4 / n),
    "heun-churned": lambda n: Heun(churn=4 / n),
}


def over(name, table):
    return pytest.mark.parametrize(name, table.values(), ids=table)


def no_noise(x):
    raise AssertionError("a deterministic sampler asked for noise")


def slopes(error, counts):
    errors = torch.tensor([error(n) for n in counts], dtype=torch.float64)
    return (errors[:-1] / errors[1:]).log2().tolist()


def path_slopes(sampler, course, counts):
    schedule, times = course
    data = Gaussian(schedule)
    z = torch.linspace(-2, 2, 5, dtype=torch.float64).reshape(5, 1, 1, 1)

    def error(n):
        grid = times(n)
        *_, end = trajectory(data, sampler, data.path(z, grid[0]), grid, noise=no_noise)
        return (end - data.path(z, grid[-1])).abs().max()

    return slopes(error, counts)


def law_error(denoise, sampler, data, grid):
    mean, variance = law_after(denoise, sampler, grid)
    exact_mean, exact_variance = data.law(grid[-1])
    return torch.maximum((mean - exact_mean).abs(), (variance - exact_variance).abs()).item()


@over("course", PLAIN)
@over("sampler", ONE_STEP)
def test_the_path_error_of_one_step_samplers_falls_with_the_claimed_order(sampler, course):
    found = path_slopes(sampler, course, [64, 128, 256])
    assert found == pytest.approx([sampler.order] * 2, abs=0.15)


@over("course", GENTLE)
@over("sampler", MULTI_STEP | {"dpm++2s": DPMSolver2S()})
def test_the_path_error_of_multi_step_samplers_falls_with_the_claimed_order(sampler, course):
    found = path_slopes(sampler, course, [64, 128, 256])
    assert found == pytest.approx([sampler.order] * 2, abs=0.15)


@pytest.mark.parametrize("grid", [grids.Karras(), grids.LogSNR()], ids=["karras", "log_snr"])
@pytest.mark.parametrize("name", ["vp_cosine", "flow", "ve", "linear"])
@over("sampler", {"heun": Heun(), "dpm++2s": DPMSolver2S()} | MULTI_STEP)
def test_on_grids_by_the_ratio_orders_hold_down_to_the_last_time_above_zero(sampler, name, grid):
    schedule = SCHEDULES[name]().build()
    found = path_slopes(sampler, (schedule, lambda n: grid(schedule, n)[:-1]), [100, 200, 400])
    # The parabola of 3M meets this path more closely still where steps are equal in lambda.
    assert min(found) > sampler.order - 0.15
    if not isinstance(sampler, DPMSolver3M):
        assert max(found) < sampler.order + 0.2


@pytest.mark.parametrize("name", ["vp_cosine", "flow"])
@over("sampler", {"heun": Heun(), "dpm++2s": DPMSolver2S()} | MULTI_STEP)
def test_on_even_times_down_to_zero_no_order_is_above_two(sampler, name):
    schedule = SCHEDULES[name]().build()
    course = schedule, lambda n: grids.uniform(schedule, n)
    assert all(1.6 < slope < 2.1 for slope in path_slopes(sampler, course, [125, 250, 500]))


@over("sampler", {"heun": Heun(), "dpm++2s": DPMSolver2S()} | MULTI_STEP)
def test_on_even_times_of_a_chain_the_last_step_decides_whatever_the_order(sampler):
    """x_0 is held on it, which leaves std z (1 - 1 / sqrt(1 + (sigma / alpha std)^2))."""
    schedule = Linear().build()
    data, z = Gaussian(schedule), torch.full((1, 1, 1, 1), 2, dtype=torch.float64)
    grid = grids.uniform(schedule, 1000)
    *_, end = trajectory(data, sampler, data.path(z, grid[0]), grid, noise=no_noise)
    ratio = schedule(grid[-2]).sigma / schedule(grid[-2]).alpha / data.std
    held = data.std * z * (1 - 1 / (1 + ratio**2).sqrt())
    assert 0.3 < ((end - data.path(z, grid[-1])).abs() / held).item() < 1.3


@over("course", GENTLE)
def test_unipc_with_three_predictions_is_of_fourth_order(course):
    found = path_slopes(UniPC(p=3), course, [64, 128, 256])
    assert found == pytest.approx([4, 4], abs=0.15)


@pytest.mark.parametrize("start", ["flow-from-pure-noise", "vp_cosine-from-pure-noise"])
@over("sampler", {"dpm++2m": DPMSolver2M(), "unipc": UniPC()})
def test_exponential_multi_step_samplers_keep_their_order_from_pure_noise(sampler, start):
    # Wider where the third order shows before it settles: x_0 hardly changes on the first steps.
    found = path_slopes(sampler, PLAIN[start], [64, 128, 256])
    assert found == pytest.approx([sampler.order] * 2, abs=0.3)


@pytest.mark.parametrize("start", ["flow-from-pure-noise", "vp_cosine-from-pure-noise"])
@over("sampler", {"plms": PNDM(), "runge_kutta": PNDM(start="runge_kutta")})
def test_pndm_comes_short_of_second_order_from_pure_noise(sampler, start):
    assert all(1.5 < slope < 2.05 for slope in path_slopes(sampler, PLAIN[start], [64, 128, 256]))


def test_pndm_with_its_runge_kutta_start_is_of_fourth_order_on_equal_steps_of_the_ratio():
    course = in_time(VE().build(), 10, 3)
    found = path_slopes(PNDM(start="runge_kutta"), course, [128, 256, 512])
    assert found == pytest.approx([4, 4], abs=0.15)


@over("course", PLAIN)
@over("sampler_for", RANDOM)
def test_the_error_of_the_law_falls_with_the_claimed_order(sampler_for, course):
    schedule, times = course
    data = Gaussian(schedule)
    found = slopes(lambda n: law_error(data, sampler_for(n), data, times(n)), [64, 128, 256])
    assert found == pytest.approx([sampler_for(64).order] * 2, abs=0.15)


@over("course", PLAIN | GENTLE)
def test_with_the_right_variance_the_ancestral_law_is_exact_in_any_number_of_steps(course):
    schedule, times = course
    data = Gaussian(schedule)
    for n in (1, 2, 7):
        grid = times(n)
        denoise = KnownVariance(data, grid)
        assert law_error(denoise, Ancestral(variance="learned"), data, grid) < 1e-10
        assert law_error(data, Ancestral(), data, grid) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_consistency_sampler_has_the_exact_law_in_any_number_of_steps(name, steps):
    data = Gaussian(SCHEDULES[name]().build())
    grid = grids.uniform(data.schedule, steps)
    assert law_error(EndOfPath(data), Consistency(), data, grid) < 1e-9


def test_the_consistency_sampler_does_not_converge_with_a_network_that_says_the_mean():
    data = Gaussian(Flow().build())
    errors = [
        law_error(data, Consistency(), data, grids.uniform(data.schedule, n)) for n in (4, 256)
    ]
    assert min(errors) > 0.1
