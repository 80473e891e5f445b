import math
from itertools import pairwise

import pytest
import torch
from gaussian import Gaussian
from torch import nn

from kao.diffusion import (
    DDIM,
    SCHEDULES,
    Ancestral,
    Clipped,
    Denoiser,
    Linear,
    SeededNoise,
    VPCosine,
    grids,
    sample,
    targets,
    trajectory,
)
from kao.diffusion.inversion import BetweenSeeds, invert, psnr, rms_error, slerp
from kao.errors import ConfigError

SMOOTH = ("linear", "cosine", "vp_cosine", "flow")


def last(path):
    return list(path)[-1]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def no_noise(x):
    raise AssertionError("a deterministic sampler asked for noise")


def there_and_back(denoise, x0, times, iterations):
    with torch.no_grad():
        latent = last(invert(denoise, x0, times, iterations=iterations))
        back = last(trajectory(denoise, DDIM(), latent, times, noise=no_noise))
    return latent, back


class Net(nn.Module):
    """Smooth, and of no meaning."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1).double()
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2, generator=generator)

    def forward(self, x, label, condition):
        return self.conv(x).tanh() + (label.double() / 500).sin().reshape(-1, 1, 1, 1)


def denoisers(name):
    schedule = SCHEDULES[name]().build()
    return Gaussian(schedule), Denoiser(Net(), schedule, targets.v, sigma_data=0.5)


@pytest.mark.parametrize("name", SMOOTH)
def test_corrected_inversion_finds_the_noise_from_which_the_sampler_makes_the_picture(name):
    x0 = 0.5 * normal(2, 3, 8, 8)
    for denoise in denoisers(name):
        times = grids.uniform(denoise.schedule, 20)
        _, back = there_and_back(denoise, x0, times, iterations=30)
        assert rms_error(x0, back).max() < 1e-6


@pytest.mark.parametrize("name", SMOOTH)
def test_each_correction_brings_the_picture_nearer(name):
    x0 = 0.5 * normal(2, 3, 8, 8)
    for denoise in denoisers(name):
        times = grids.uniform(denoise.schedule, 20)
        errors = [
            rms_error(x0, there_and_back(denoise, x0, times, n)[1]).max() for n in (0, 2, 4, 8)
        ]
        assert all(more < less / 2 for less, more in pairwise(errors))


def test_the_approximation_gets_better_with_the_number_of_steps():
    data, x0 = Gaussian(VPCosine().build()), 0.5 * normal(2, 3, 8, 8)
    errors = [
        rms_error(x0, there_and_back(data, x0, grids.uniform(data.schedule, n), 0)[1]).max()
        for n in (25, 50, 100)
    ]
    assert errors[1] < 0.6 * errors[0] and errors[2] < 0.6 * errors[1]


def test_the_noise_that_is_found_is_that_of_the_probability_flow():
    # On Gaussian data the ODE keeps (x - mean) / std of each time.
    data, x0 = Gaussian(VPCosine().build()), 0.3 + 0.5 * normal(2, 3, 8, 8)
    times = grids.uniform(data.schedule, 1000)
    latent, _ = there_and_back(data, x0, times, iterations=3)
    exact = data.path((x0 - data.mean) / data.std, times[0])
    torch.testing.assert_close(latent, exact, rtol=0, atol=0.02)


def test_one_correction_is_exact_for_normal_data():
    data, x0 = Gaussian(VPCosine().build(), mean=0.0, std=1.0), normal(2, 3, 8, 8)
    _, back = there_and_back(data, x0, grids.uniform(data.schedule, 5), iterations=1)
    torch.testing.assert_close(back, x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("iterations", [0, 3])
@pytest.mark.parametrize("name", SCHEDULES)
def test_inversion_asks_nothing_about_time_zero_and_yields_an_image_a_step(name, iterations):
    data, asked = Gaussian(SCHEDULES[name]().build()), []

    class Spy:
        schedule = data.schedule

        def __call__(self, x, t):
            asked.append(t.item())
            return data(x, t)

    times = grids.uniform(data.schedule, 5)
    states = list(invert(Spy(), normal(2, 3, 4, 4), times, iterations=iterations))
    assert len(states) == 5 and states[-1].isfinite().all()
    assert min(asked) > 0
    assert len(asked) == 5 + (5 * (iterations + 1) if iterations else 0)


def test_more_corrections_are_never_worse_where_none_can_succeed():
    # What clipping cuts off cannot be found again, however often it is tried.
    data = Clipped(Gaussian(VPCosine().build()), 0.4)
    x0, times = normal(2, 3, 8, 8), grids.uniform(data.schedule, 10)
    few, many = (there_and_back(data, x0, times, n)[1] for n in (1, 40))
    assert many.isfinite().all()
    assert (rms_error(x0, many) <= rms_error(x0, few) + 1e-9).all()


def test_each_picture_is_inverted_as_if_it_were_alone():
    data, x0 = Gaussian(Linear().build()), 0.5 * normal(3, 3, 8, 8)
    times = grids.uniform(data.schedule, 5)
    together = last(invert(data, x0, times, iterations=4))
    alone = last(invert(data, x0[1:2], times, iterations=4))
    torch.testing.assert_close(together[1:2], alone, rtol=0, atol=1e-12)


def test_a_negative_number_of_corrections_is_refused():
    data = Gaussian(Linear().build())
    with pytest.raises(ConfigError, match="iterations = -1"):
        last(invert(data, normal(1, 3, 4, 4), grids.uniform(data.schedule, 5), iterations=-1))


def test_errors_are_per_picture_and_in_decibels_below_the_range_of_two():
    a = torch.zeros(2, 3, 4, 4)
    rms = rms_error(a, torch.stack([a[0] + 0.2, a[0]]))
    assert rms.tolist() == pytest.approx([0.2, 0.0])
    assert rms.dtype == torch.float64
    assert psnr(rms).tolist() == pytest.approx([20.0, math.inf])


# --- between two noises -------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.75, 1.0])
def test_the_arc_keeps_the_length_and_divides_the_angle(share):
    a, b = normal(4, 3, 8, 8), normal(4, 3, 8, 8, seed=1)
    lengths = [x.flatten(1).norm(dim=1).reshape(4, 1, 1, 1) for x in (a, b)]
    a, b = (14 * x / length for x, length in zip((a, b), lengths, strict=True))
    between = slerp(a, b, share)
    torch.testing.assert_close(between.flatten(1).norm(dim=1), torch.full((4,), 14.0).double())

    def angle(x, y):
        return ((x * y).sum((1, 2, 3)) / 14**2).clamp(-1, 1).acos()

    torch.testing.assert_close(angle(a, between), share * angle(a, b), rtol=0, atol=1e-6)


def test_the_arc_ends_where_it_should_and_the_line_is_shorter_half_way():
    a, b = normal(2, 3, 16, 16), normal(2, 3, 16, 16, seed=1)
    assert torch.equal(slerp(a, b, 0.0), a)
    torch.testing.assert_close(slerp(a, b, 1.0), b, rtol=1e-12, atol=1e-12)
    assert slerp(a, b, 0.5).std().item() == pytest.approx(1, abs=0.05)
    assert ((a + b) / 2).std().item() == pytest.approx(math.sqrt(0.5), abs=0.05)


def test_where_there_is_no_arc_the_line_is_taken():
    a = normal(1, 3, 4, 4)
    torch.testing.assert_close(slerp(a, a, 0.3), a)
    torch.testing.assert_close(slerp(a, 2 * a, 0.5), 1.5 * a)
    torch.testing.assert_close(slerp(a, -a, 0.5), torch.zeros_like(a), rtol=0, atol=1e-6)
    assert slerp(0 * a, a, 0.5).isfinite().all()


def test_small_angles_are_divided_exactly_in_single_precision():
    a = normal(1, 3, 32, 32).float()
    b = a + 1e-4 * normal(1, 3, 32, 32, seed=1).float()
    torch.testing.assert_close(slerp(a, b, 0.5), (a + b) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("sampler", [DDIM(), Ancestral()], ids=["ddim", "ddpm"])
def test_the_way_between_seeds_starts_and_ends_with_their_own_pictures(sampler):
    data = Gaussian(Linear().build())
    times = grids.uniform(data.schedule, 10)
    noise = BetweenSeeds(3, 4, [0.0, 0.5, 1.0])
    x = data.schedule(times[0]).sigma * noise(torch.empty(3, 3, 8, 8))
    drawn = last(trajectory(data, sampler, x, times, noise=noise))
    for image, seed in ((drawn[:1], 3), (drawn[2:], 4)):
        own = sample(data, sampler, times, (3, 8, 8), seeds=[seed])
        torch.testing.assert_close(image, own, rtol=0, atol=1e-5)
    apart = [rms_error(drawn[1:2], drawn[i : i + 1]).item() for i in (0, 2)]
    assert 0.7 < apart[0] / apart[1] < 1.4


def test_noise_between_seeds_is_drawn_anew_each_time():
    noise, own = BetweenSeeds(3, 4, [0.0]), SeededNoise([3])
    blank = torch.empty(1, 3, 4, 4)
    first, second = noise(blank), noise(blank)
    assert torch.equal(first, own(blank)) and torch.equal(second, own(blank))
