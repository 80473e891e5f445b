import numpy as np
import pytest
import torch
from PIL import Image

from kao.diffusion import DDIM, SCHEDULES, Prediction, grids
from kao.pixels import to_uint8
from kao.reports import figures

SIZE = 8


class Gaussian:
    """The exact denoiser of pictures whose pixels are N(mean, 0.3^2); it notes where it looked."""

    def __init__(self, schedule, mean):
        self.schedule, self.mean, self.times = schedule, mean, []

    def __call__(self, x, t):
        self.times.append(float(t))
        alpha, sigma = self.schedule(t).like(x)
        gain = alpha * 0.09 / (alpha**2 * 0.09 + sigma**2)
        x0 = self.mean + gain * (x - alpha * self.mean)
        return Prediction(x0, (x - alpha * x0) / sigma)


@pytest.fixture
def drawn(monkeypatch):
    """What the figure handed to `strip`, as it is: rows of uint8 pictures and the titles."""
    calls = {}

    def strip(rows, *, titles=(), row_titles=()):
        calls.update(rows=rows, titles=list(titles), row_titles=list(row_titles))
        return Image.new("RGB", (1, 1))

    monkeypatch.setattr(figures, "strip", strip)
    return calls


@pytest.fixture
def schedule():
    return SCHEDULES["linear"]().build()


@pytest.fixture
def denoise(schedule):
    return Gaussian(schedule, mean=0.5)


def pictures(count):
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, SIZE, SIZE, generator=generator) * 2 - 1


def test_the_forward_strip_starts_with_the_pictures_and_ends_in_noise(schedule, drawn):
    images = pictures(3)
    figures.forward_strip(schedule, images, seed=0)
    assert drawn["titles"] == ["0 %", "25 %", "50 %", "75 %", "99 %"]
    assert torch.equal(torch.stack([row[0] for row in drawn["rows"]]), to_uint8(images))
    ends = [np.corrcoef(row[0].flatten(), row[-1].flatten())[0, 1] for row in drawn["rows"]]
    assert max(np.abs(ends)) < 0.25


def test_a_pictures_noise_does_not_depend_on_its_company(schedule, drawn):
    images = pictures(3)
    figures.forward_strip(schedule, images, seed=1)
    first = drawn["rows"][0]
    figures.forward_strip(schedule, images[:1], seed=1)
    assert torch.equal(drawn["rows"][0], first)


@pytest.mark.parametrize("config", SCHEDULES.values(), ids=SCHEDULES)
def test_every_schedule_has_a_forward_strip_that_is_not_all_black_and_white(config, drawn):
    figures.forward_strip(config().build(), pictures(1), seed=0)
    noisy = drawn["rows"][0][-1]
    assert ((noisy == 0) | (noisy == 255)).float().mean() < 0.5


def test_the_reverse_strip_pairs_each_picture_with_its_prediction(denoise, drawn):
    times = grids.uniform(denoise.schedule, 20)
    figures.reverse_strip(denoise, DDIM(), times, size=SIZE, seeds=[1, 2])
    assert drawn["titles"] == ["100 %", "75 %", "50 %", "25 %", "0 %"]
    assert drawn["row_titles"] == ["noisy", "predicted"] * 2
    assert len(drawn["rows"]) == 4 and all(len(row) == 5 for row in drawn["rows"])
    for noisy, predicted in zip(drawn["rows"][::2], drawn["rows"][1::2], strict=True):
        assert torch.equal(noisy[-1], predicted[-1])
        # From pure noise the best guess is the mean, 0.5 or byte 191.
        assert (predicted[0].float() - 191).abs().max() < 3


def test_the_prediction_is_never_asked_for_where_no_noise_is_left(denoise):
    times = grids.uniform(denoise.schedule, 10)
    figures.reverse_strip(denoise, DDIM(), times, size=SIZE, seeds=[0])
    assert 0.0 not in denoise.times


def test_a_grid_with_few_steps_shows_each_of_its_times_once(denoise, drawn):
    times = grids.uniform(denoise.schedule, 2)
    figures.reverse_strip(denoise, DDIM(), times, size=SIZE, seeds=[0])
    assert drawn["titles"] == ["100 %", "50 %", "0 %"]


def test_the_process_goes_from_the_first_noise_to_the_end(denoise, drawn):
    times = grids.uniform(denoise.schedule, 30)
    figures.process_strips(denoise, DDIM(), times, size=SIZE, seeds=range(6))
    assert len(drawn["rows"]) == 6 and all(len(row) == 8 for row in drawn["rows"])
    assert drawn["titles"][0] == "100 %" and drawn["titles"][-1] == "0 %"
    assert torch.stack([row[-1] for row in drawn["rows"]]).float().mean() == pytest.approx(
        191, abs=6
    )


def test_a_picture_depends_on_its_seed_alone(denoise, drawn):
    times = grids.uniform(denoise.schedule, 5)
    figures.process_strips(denoise, DDIM(eta=1.0), times, size=SIZE, seeds=[7, 8])
    second = drawn["rows"][1]
    figures.process_strips(denoise, DDIM(eta=1.0), times, size=SIZE, seeds=[8])
    assert torch.equal(drawn["rows"][0], second)


def test_figures_take_no_gradients(schedule, drawn):
    weight = torch.tensor(0.5, requires_grad=True)
    denoise = Gaussian(schedule, mean=weight)
    figures.process_strips(denoise, DDIM(), grids.uniform(schedule, 3), size=SIZE, seeds=[0])
    assert (
        weight.grad is None and not denoise(torch.zeros(1, 3, 2, 2), torch.tensor(9.0)).x0.is_leaf
    )


def test_the_film_ends_where_the_process_ends(denoise, drawn, tmp_path):
    times = grids.uniform(denoise.schedule, 12)
    path = figures.denoising_gif(
        denoise, DDIM(), times, tmp_path / "film.gif", size=SIZE, seeds=[3], seconds=1, hold=1
    )
    figures.process_strips(denoise, DDIM(), times, size=SIZE, seeds=[3])
    with Image.open(path) as film:
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB").resize((SIZE, SIZE), Image.Resampling.NEAREST))
    end = drawn["rows"][0][-1].permute(1, 2, 0).numpy()
    assert np.abs(last.astype(int) - end.astype(int)).mean() < 4


def test_strips_come_out_as_pictures_large_enough_to_read(denoise):
    times = grids.uniform(denoise.schedule, 8)
    picture = figures.reverse_strip(denoise, DDIM(), times, size=SIZE, seeds=[0, 1])
    assert picture.mode == "RGB" and picture.width > 5 * 64 and picture.height > 4 * 64
