"""What a loss tells the training times: the error of x_0, and the pull of each image."""

import pytest
import torch
from torch import nn

from kao.diffusion import (
    Cosine,
    Denoiser,
    DenoisingLoss,
    Drawn,
    MinSNR,
    Perceptual,
    Uncertainty,
    Uniform,
    solve,
    targets,
)


class Net(nn.Module):
    def __init__(self, outputs=3):
        super().__init__()
        self.conv = nn.Conv2d(3, outputs, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)

    def forward(self, x, label, condition):
        return self.conv(x)


class Spy(nn.Module):
    """Remembers what it was shown."""

    def __init__(self):
        super().__init__()
        self.inner = Net()

    def forward(self, x, label, condition):
        self.shown = x
        return self.inner(x, label, condition)


SCHEDULE = Cosine().build()
X0 = (torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(3)) / 2).clamp(-1, 1)


OF_GREY = X0.square().flatten(1).mean(1)


def taken(denoiser, **options):
    loss = DenoisingLoss(Uniform().build(SCHEDULE), **options)
    return loss, loss(denoiser, X0, None, torch.Generator().manual_seed(1))


@pytest.mark.parametrize("target", [targets.eps, targets.x0, targets.v, targets.velocity])
@pytest.mark.parametrize("perturbation", [0.0, 0.2])
def test_the_error_is_of_the_picture_that_the_model_predicts(target, perturbation):
    spy = Spy()
    denoiser = Denoiser(spy, SCHEDULE, target)
    _, losses = taken(denoiser, input_perturbation=perturbation)
    predicted = solve(spy.shown, spy.inner.conv(spy.shown), losses.level.like(X0), target).x0
    error = (predicted - X0).square().flatten(1).mean(1).minimum(OF_GREY)
    torch.testing.assert_close(losses.error, error, rtol=2e-3, atol=1e-4)


def test_the_error_is_no_larger_than_that_of_a_grey_picture():
    _, losses = taken(Denoiser(Net(), SCHEDULE, targets.eps))
    assert losses.t.max() > 980  # where this network's x_0 is a thousand times too large
    assert (losses.error <= OF_GREY).all()
    assert (losses.error < OF_GREY).any()


def test_the_loss_of_an_image_does_not_depend_on_its_batch():
    denoiser = Denoiser(Net(), SCHEDULE, targets.v)
    loss = DenoisingLoss(Uniform().build(SCHEDULE), weight=MinSNR(), offset_noise=0.1)
    t, importance = loss.times(64, torch.Generator().manual_seed(1))
    drawn = Drawn(t, importance, *loss.noise(X0, torch.Generator().manual_seed(2)))
    whole, part = loss.at(denoiser, X0, None, drawn), slice(5, 9)
    alone = loss.at(denoiser, X0[part], None, drawn.rows(part))
    for name in ("value", "t", "shown", "error", "pull"):
        torch.testing.assert_close(getattr(alone, name), getattr(whole, name)[part])


def test_the_pull_is_the_shown_loss_where_nothing_is_added():
    _, losses = taken(Denoiser(Net(), SCHEDULE, targets.v), weight=MinSNR())
    assert torch.equal(losses.pull, losses.shown)
    assert not losses.pull.requires_grad


def test_the_pull_is_levelled_by_the_uncertainty_and_does_not_count_it():
    uncertainty = Uncertainty(seed=0)
    with torch.no_grad():
        uncertainty.slope.normal_(generator=torch.Generator().manual_seed(2))
    denoiser = Denoiser(Net(), SCHEDULE, targets.v)
    _, losses = taken(denoiser, uncertainty=uncertainty)
    u = uncertainty(losses.level).detach()
    torch.testing.assert_close(losses.pull, losses.shown / u.exp())
    torch.testing.assert_close(losses.value.detach(), losses.pull + u)


def test_the_pull_counts_the_perceptual_term_and_the_bound():
    perceptual = Perceptual(lambda x: x.flatten(1), weight=0.5, below=1.0)
    _, losses = taken(Denoiser(Net(), SCHEDULE, targets.v), perceptual=perceptual)
    near = losses.level.sigma < losses.level.alpha
    assert (losses.pull[near] > losses.shown[near]).all()
    assert torch.equal(losses.pull[~near], losses.shown[~near])
    denoiser = Denoiser(Net(6), SCHEDULE, targets.v, learned_variance=True)
    _, losses = taken(denoiser, bound=0.001)
    assert (losses.pull != losses.shown).any()
