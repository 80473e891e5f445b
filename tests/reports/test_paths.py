"""Walking paths from noise to a picture, and measuring them."""

import math

import pytest
import torch

from kao.diffusion import DDIM, SCHEDULES, Ancestral, Heun, Prediction, grids
from kao.pixels import to_uint8
from kao.reports.paths import PLACES, along, angle, direction, trajectory_plot, walk

SIZE = 8
CONTINUOUS = ("vp_cosine", "flow", "ve")


class Certain:
    """A model that knows one picture and predicts it from any noise: its paths are straight."""

    def __init__(self, schedule, picture):
        self.schedule, self.picture = schedule, picture

    def __call__(self, x, t):
        alpha, sigma = self.schedule(t).like(x)
        x0 = self.picture.expand_as(x)
        return Prediction(x0, (x - alpha * x0) / sigma)


class Gaussian:
    """The exact denoiser of normal pixels of mean 0.2, broad on one side: its paths bend."""

    def __init__(self, schedule):
        self.schedule = schedule

    def __call__(self, x, t):
        alpha, sigma = self.schedule(t).like(x)
        variance = torch.linspace(0.01, 0.5, x.shape[-1])
        x0 = 0.2 + alpha * variance / (alpha**2 * variance + sigma**2) * (x - alpha * 0.2)
        return Prediction(x0, (x - alpha * x0) / sigma)


def schedule_named(name):
    return SCHEDULES[name]().build()


@pytest.fixture
def picture():
    generator = torch.Generator().manual_seed(5)
    return torch.rand(1, 3, SIZE, SIZE, generator=generator) * 2 - 1


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("sampler", [DDIM(), Heun()], ids=["ddim", "heun"])
def test_a_straight_path_has_no_angles_and_its_prediction_never_moves(name, sampler, picture):
    schedule = schedule_named(name)
    walked = walk(
        Certain(schedule, picture), sampler, grids.uniform(schedule, 12), size=SIZE, seeds=[0, 1]
    )
    assert walked.bends.shape == (11, 2) and walked.moves.shape == (12, 2)
    # float32 pictures: a step may be small beside the noise that it starts from.
    assert walked.bends.max() < 0.1 and walked.moves.max() < 1e-4
    assert torch.equal(walked.pictures, to_uint8(picture).expand(2, -1, -1, -1))


@pytest.mark.parametrize("name", CONTINUOUS)
def test_a_path_that_bends_has_angles(name):
    schedule = schedule_named(name)
    times = grids.Karras()(schedule, 12)
    walked = walk(Gaussian(schedule), DDIM(), times, size=SIZE, seeds=[0])
    assert walked.bends.sum() > 5


def test_a_sampler_that_adds_noise_turns_at_every_step(picture):
    schedule = schedule_named("linear")
    times = grids.uniform(schedule, 12)
    calm = walk(Gaussian(schedule), DDIM(), times, size=SIZE, seeds=[0]).bends
    wild = walk(Gaussian(schedule), Ancestral(), times, size=SIZE, seeds=[0]).bends
    assert wild[:-1].min() > calm.max() and wild[:-1].min() > 30


@pytest.mark.parametrize("degrees", [0, 1e-6, 0.01, 45, 90, 179.999999, 180])
def test_angles_are_exact_however_small(degrees):
    turn = math.radians(degrees)
    first = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    second = 5 * torch.tensor([[math.cos(turn), math.sin(turn)]], dtype=torch.float64)
    assert angle(first, second).item() == pytest.approx(degrees, rel=1e-9, abs=1e-12)


def test_a_direction_is_that_of_x_over_alpha():
    schedule = schedule_named("vp_cosine")
    t, s = (schedule(torch.tensor(x, dtype=torch.float64)) for x in (0.7, 0.4))
    x_t, x_s = torch.randn(2, 1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    expected = (x_s / s.alpha - x_t / t.alpha).flatten(1)
    assert torch.allclose(direction(x_t, x_s, t, s), t.alpha * s.alpha * expected)


def test_from_pure_noise_the_direction_is_away_from_the_noise():
    schedule = schedule_named("flow")
    t, s = (schedule(torch.tensor(x, dtype=torch.float64)) for x in (1.0, 0.9))
    x_t, x_s = torch.ones(1, 1, 2, 2), torch.randn(1, 1, 2, 2)
    assert angle(direction(x_t, x_s, t, s), -x_t.double().flatten(1)).item() == 0


def test_the_values_start_at_the_noise_and_end_at_the_picture(picture):
    schedule = schedule_named("flow")
    model, times = Certain(schedule, picture), grids.uniform(schedule, 5)
    walked = walk(model, DDIM(), times, size=SIZE, seeds=[4])
    (_, noise), *_ = along(model, DDIM(), times, size=SIZE, seeds=[4])
    for i, (across, down) in enumerate(PLACES):
        row, column = int(down * SIZE), int(across * SIZE)
        assert walked.values[0, 0, i] == noise[0, 1, row, column]
        assert walked.values[-1, 0, i] == pytest.approx(picture[0, 1, row, column].item(), abs=1e-6)


def test_values_of_a_schedule_that_explodes_are_brought_back_to_the_scale_of_pictures():
    schedule = schedule_named("ve")
    walked = walk(Gaussian(schedule), DDIM(), grids.uniform(schedule, 5), size=SIZE, seeds=[0])
    assert 0.1 < walked.values[0].abs().max() < 5


def test_the_moves_are_those_of_the_prediction():
    schedule = schedule_named("linear")
    model, times = Gaussian(schedule), grids.uniform(schedule, 6)
    walked = walk(model, DDIM(), times, size=SIZE, seeds=[2])
    steps = list(along(model, DDIM(), times, size=SIZE, seeds=[2]))
    first, second = (model(x, t).x0 for t, x in steps[:2])
    assert walked.moves[0, 0] == pytest.approx((second - first).square().mean().sqrt().item())
    last, end = model(steps[-2][1], steps[-2][0]).x0, steps[-1][1]
    assert walked.moves[-1, 0] == pytest.approx(
        (end - last).square().mean().sqrt().item(), abs=1e-6
    )


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("name", ["linear", "flow"])
def test_any_path_is_drawn_as_far_as_it_goes(name, steps):
    schedule = schedule_named(name)
    walked = walk(Gaussian(schedule), DDIM(), grids.uniform(schedule, steps), size=SIZE, seeds=[0])
    plot = trajectory_plot(walked)
    assert plot.mode == "RGB" and plot.width > 600 and plot.height > 900


def test_ends_of_no_noise_and_of_no_signal_stay_on_the_axis(monkeypatch):
    figures = []
    monkeypatch.setattr("kao.reports.paths.rendered", figures.append)
    schedule = schedule_named("vp_cosine")
    times = grids.uniform(schedule, 10)
    trajectory_plot(walk(Gaussian(schedule), DDIM(), times, size=SIZE, seeds=[0, 1, 2]))
    panels = [axes for axes in figures[0].axes if axes.lines and axes.axison]
    assert len(panels) == 9
    for axes in panels:
        low, high = axes.get_xlim()
        assert -10 < low < high < 10
        for line in axes.lines:
            assert all(low < x < high for x in line.get_xdata())


def test_no_gradients_are_kept(picture):
    schedule = schedule_named("flow")
    model = Certain(schedule, picture.requires_grad_())
    walked = walk(model, DDIM(), grids.uniform(schedule, 3), size=SIZE, seeds=[0])
    assert not walked.values.requires_grad and not walked.moves.requires_grad
