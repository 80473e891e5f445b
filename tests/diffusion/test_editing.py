import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian, scalar

from kao.diffusion import (
    DDIM,
    SCHEDULES,
    Ancestral,
    Flow,
    Linear,
    Prediction,
    SeededNoise,
    VPCosine,
    grids,
    seeds_of,
)
from kao.diffusion.editing import (
    inpaint,
    noised,
    noised_further,
    recover,
    resampled,
    starting_at,
)
from kao.errors import ConfigError

SCHEDULE = Linear().build()


def last(path):
    return list(path)[-1]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def drawn_noise(seed=99):
    """N(0, I), a new one at each call."""
    generator = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=generator, dtype=x.dtype)


def no_noise(x):
    raise AssertionError("noise was asked for")


# --- noising ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_noised_picture_is_its_level_and_at_time_zero_itself(name):
    schedule = SCHEDULES[name]().build()
    x0, eps = normal(2, 3, 4, 4), normal(2, 3, 4, 4, seed=1)
    t = torch.tensor([0.2, 0.9], dtype=torch.float64) * schedule.t_max
    alpha, sigma = schedule(t).like(x0)
    assert torch.equal(noised(schedule, x0, t, lambda x: eps), alpha * x0 + sigma * eps)
    assert torch.equal(noised(schedule, x0, scalar(0), lambda x: eps), x0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_noising_twice_is_noising_once(name):
    schedule = SCHEDULES[name]().build()
    t, s = scalar(0.3 * schedule.t_max), scalar(0.8 * schedule.t_max)
    one, zero = torch.ones(1, 1, 1, 1).double(), torch.zeros(1, 1, 1, 1).double()
    factor = noised_further(schedule, one, t, s, torch.zeros_like)
    added = noised_further(schedule, zero, t, s, torch.ones_like)
    assert (factor * schedule(t).alpha).item() == pytest.approx(schedule(s).alpha.item())
    variance = (factor * schedule(t).sigma) ** 2 + added**2
    assert variance.item() == pytest.approx(schedule(s).sigma.item() ** 2)


# --- a part of the way --------------------------------------------------------------------------


def test_a_part_of_a_grid_starts_where_it_is_told_and_then_keeps_to_it():
    times = torch.tensor([10.0, 7.0, 3.0, 0.0], dtype=torch.float64)
    assert starting_at(times, scalar(8)).tolist() == [8, 7, 3, 0]
    assert starting_at(times, scalar(7)).tolist() == [7, 3, 0]
    assert starting_at(times, scalar(1)).tolist() == [1, 0]
    assert torch.equal(starting_at(times, scalar(10)), times)


@pytest.mark.parametrize("t", [0.0, -1.0, math.nan])
def test_a_start_without_a_way_left_is_refused(t):
    with pytest.raises(ConfigError, match="choose a later time"):
        starting_at(grids.uniform(SCHEDULE, 5), scalar(t))


# --- recovering ---------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [50, 300, 1000])
def test_what_is_recovered_has_the_law_of_the_data_and_remembers_what_the_noise_left(t):
    # Given x_t, the original and what is recovered are two draws of one posterior; hence their
    # correlation is the share of the variance that x_t explains.
    data = Gaussian(SCHEDULE)
    x0 = data.mean + data.std * normal(1, 1, 128, 128)
    times = starting_at(grids.uniform(SCHEDULE, 500), scalar(t))
    x = last(recover(data, Ancestral(), x0, times, noise=drawn_noise()))
    assert x.mean().item() == pytest.approx(data.mean, abs=0.02)
    assert x.std().item() == pytest.approx(data.std, abs=0.02)
    alpha, sigma = SCHEDULE(scalar(t))
    share = (alpha * data.std) ** 2 / ((alpha * data.std) ** 2 + sigma**2)
    correlation = torch.corrcoef(torch.stack([x0.flatten(), x.flatten()]))[0, 1]
    assert correlation.item() == pytest.approx(share.item(), abs=0.03)


def test_recovering_yields_one_image_a_step_from_the_noise_of_its_first_time():
    data, eps = Gaussian(SCHEDULE), normal(2, 3, 4, 4, seed=1)
    x0, times = normal(2, 3, 4, 4), starting_at(grids.uniform(SCHEDULE, 10), scalar(450))
    states = list(recover(data, DDIM(), x0, times, noise=lambda x: eps))
    assert len(states) == len(times) - 1
    first = noised(SCHEDULE, x0, scalar(450), lambda x: eps)
    expected, _ = DDIM().step(data, first, times[0], times[1], noise=no_noise)
    assert torch.equal(states[0], expected)


def test_a_noisy_picture_that_is_taken_for_pure_noise_comes_back_with_too_little_contrast():
    # DDIM keeps the standardised coordinate: what is too small at the start is so at the end.
    data, t = Gaussian(SCHEDULE), scalar(100)
    x0 = data.mean + data.std * normal(1, 1, 128, 128)
    times = grids.uniform(SCHEDULE, 500)
    right = last(recover(data, DDIM(), x0, starting_at(times, t), noise=drawn_noise()))
    wrong = last(recover(data, DDIM(), x0, times, noise=drawn_noise(), t=t))
    (_, at_t), (_, at_end) = data.law(t), data.law(times[0])
    assert right.std().item() == pytest.approx(data.std, rel=0.03)
    assert wrong.std().item() == pytest.approx(data.std * (at_t / at_end).sqrt().item(), rel=0.03)
    assert wrong.std() < 0.6 * right.std()


def test_a_picture_is_recovered_from_its_seed_whatever_its_batch():
    data, x0 = Gaussian(SCHEDULE), normal(3, 3, 4, 4).float()
    times = starting_at(grids.uniform(SCHEDULE, 10), scalar(500))

    def ends(images, indices):
        noise = SeededNoise(seeds_of(0, indices))
        return last(recover(data, Ancestral(), images, times, noise=noise))

    assert torch.equal(ends(x0, range(3))[1:2], ends(x0[1:2], [1]))


# --- completing ---------------------------------------------------------------------------------


def test_a_resampled_way_goes_over_each_whole_stretch_again():
    times = torch.arange(8, -1, -1, dtype=torch.float64)
    way = resampled(times, jump=3, repeats=2)
    assert way.tolist() == [8, *(7, 6, 5, 4), *(7, 6, 5, 4), *(3, 2, 1), *(4, 3, 2, 1), 0]
    assert resampled(times, jump=7, repeats=2).tolist() == [8, *range(7, 0, -1), 8, *times[1:]]
    assert resampled(times, jump=1, repeats=3).tolist()[:7] == [8, 7, 8, 7, 8, 7, 6]


@pytest.mark.parametrize("jump", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("repeats", [1, 2, 4])
def test_a_resampled_way_makes_every_step_and_each_jump_as_often_as_it_repeats(jump, repeats):
    times = grids.uniform(Flow().build(), 10)
    way = resampled(times, jump=jump, repeats=repeats)
    stretches = 9 // jump
    assert len(way) == len(times) + (repeats - 1) * (jump + 1) * stretches
    down = [(t, s) for t, s in pairwise(way.tolist()) if s < t]
    assert set(down) == set(pairwise(times.tolist()))
    assert len(way) - 1 - len(down) == (repeats - 1) * stretches
    if repeats == 1:
        assert torch.equal(way, times)


@pytest.mark.parametrize(
    ("jump", "repeats", "said"),
    [(0, 2, "count from 1"), (1, 0, "count from 1"), (10, 2, "jump = 10 is too long")],
)
def test_jumps_that_cannot_be_made_are_refused(jump, repeats, said):
    with pytest.raises(ConfigError, match=said):
        resampled(grids.uniform(SCHEDULE, 10), jump=jump, repeats=repeats)


def box(size=6):
    mask = torch.zeros(1, 1, size, size, dtype=torch.bool)
    mask[..., 1:4, 2:5] = True
    return mask


@pytest.mark.parametrize("sampler", [DDIM(), Ancestral()], ids=["ddim", "ddpm"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_known_pixels_are_those_of_the_picture_exactly(name, sampler):
    data = Gaussian(SCHEDULES[name]().build())
    x0, mask = normal(2, 3, 6, 6).float(), box()
    way = resampled(grids.uniform(data.schedule, 6), jump=2, repeats=2)
    states = list(inpaint(data, sampler, x0, mask, way, noise=SeededNoise([0, 1])))
    assert len(states) == len(way) - 1
    known = ~mask.expand_as(x0)
    assert torch.equal(states[-1][known], x0[known])
    assert states[-1].isfinite().all()
    assert (states[-1] != x0)[~known].all()


def test_what_is_under_the_mask_is_never_looked_at():
    data, mask = Gaussian(SCHEDULE), box()
    x0 = normal(1, 3, 6, 6)
    way = resampled(grids.uniform(SCHEDULE, 6), jump=2, repeats=2)
    ours, blind = (
        last(inpaint(data, DDIM(), image, mask, way, noise=drawn_noise()))
        for image in (x0, x0.masked_fill(mask, math.nan))
    )
    assert torch.equal(ours, blind)


class Pair:
    """The exact denoiser of pairs of pixels N(0, 1/4) with a correlation of 0.9."""

    schedule = VPCosine().build()
    covariance = 0.25 * torch.tensor([[1.0, 0.9], [0.9, 1.0]], dtype=torch.float64)

    def __call__(self, x, t):
        alpha, sigma = self.schedule(t)
        noisy = alpha**2 * self.covariance + sigma**2 * torch.eye(2, dtype=torch.float64)
        x0 = x @ torch.linalg.solve(noisy, alpha * self.covariance)
        return Prediction(x0, (x - alpha * x0) / sigma)


def completed(repeats):
    """8192 right pixels, drawn to a left one of 0.8."""
    x0 = torch.tensor([0.8, 0.0], dtype=torch.float64).expand(8192, 1, 1, 2)
    mask = torch.tensor([False, True]).reshape(1, 1, 1, 2)
    way = resampled(grids.uniform(Pair.schedule, 60), jump=3, repeats=repeats)
    end = last(inpaint(Pair(), Ancestral(), x0, mask, way, noise=drawn_noise()))
    return end[..., 1]


def test_going_over_it_again_brings_completions_near_their_conditional_law():
    once, often = completed(1), completed(10)
    mean, std = 0.9 * 0.8, 0.5 * math.sqrt(1 - 0.9**2)
    assert often.mean().item() == pytest.approx(mean, abs=0.04)
    assert often.std().item() == pytest.approx(std, abs=0.04)
    assert (once.mean() - mean).abs() > 5 * (often.mean() - mean).abs()


def test_completions_of_what_does_not_depend_on_the_rest_have_the_law_of_the_data():
    data, mask = Gaussian(VPCosine().build()), box(64)
    mask[..., :32] = True
    x0 = torch.full((4, 1, 64, 64), 0.9, dtype=torch.float64)
    times = grids.uniform(data.schedule, 200)
    drawn = last(inpaint(data, Ancestral(), x0, mask, times, noise=drawn_noise()))
    unknown = drawn[mask.expand_as(drawn)]
    assert unknown.mean().item() == pytest.approx(data.mean, abs=0.02)
    assert unknown.std().item() == pytest.approx(data.std, abs=0.02)
