import math

import pytest
import torch
from torch import Tensor

from kao.diffusion import SCHEDULES, VE, Flow, Level
from kao.diffusion.uncertainty import Uncertainty
from kao.errors import ConfigError


def levels(*t: float) -> Level:
    return VE().build()(torch.tensor(t, dtype=torch.float64))


def trained(loss: Tensor, level: Level) -> Uncertainty:
    """Descend loss / exp(u) + u to its minimum."""
    uncertainty = Uncertainty(features=32)
    optimizer = torch.optim.LBFGS(
        uncertainty.parameters(), max_iter=300, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        u = uncertainty(level)
        value = (loss / u.exp() + u).mean()
        value.backward()
        return value

    optimizer.step(closure)
    return uncertainty


def test_it_starts_at_zero():
    assert torch.equal(Uncertainty()(levels(0.01, 1.0, 50.0)), torch.zeros(3))


def test_its_minimiser_is_the_logarithm_of_the_expected_loss():
    # Two losses at each of three levels; by the mean, not by either.
    level = levels(0.02, 0.02, 0.7, 0.7, 30.0, 30.0)
    loss = torch.tensor([0.1, 0.5, 1.0, 3.0, 20.0, 60.0])
    u = trained(loss, level)(level)
    expected = torch.tensor([0.3, 0.3, 2.0, 2.0, 40.0, 40.0]).log()
    torch.testing.assert_close(u, expected, atol=1e-2, rtol=0)


def test_levels_between_those_seen_are_between_their_values():
    level = levels(0.5, 1.0)
    u = trained(torch.tensor([1.0, 4.0]), level)(levels(0.5, 0.7, 1.0))
    assert u[0] < u[1] < u[2]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_it_is_finite_and_has_gradients_to_both_ends_of_a_schedule(schedule):
    curve, uncertainty = SCHEDULES[schedule]().build(), Uncertainty()
    t = torch.tensor([0.0, 1e-12, 0.5, 1.0], dtype=torch.float64) * curve.t_max
    u = uncertainty(curve(t))
    u.sum().backward()
    assert u.isfinite().all()
    for parameter in uncertainty.parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0


def test_frequencies_are_the_seeds_and_saved_but_not_trained():
    one, same, other = Uncertainty(seed=1), Uncertainty(seed=1), Uncertainty(seed=2)
    assert torch.equal(one.frequencies, same.frequencies)
    assert not torch.equal(one.frequencies, other.frequencies)
    assert {"frequencies", "phases"} <= set(one.state_dict())
    assert {name for name, _ in one.named_parameters()} == {"slope", "offset"}


def test_autocast_leaves_it_in_full_precision():
    uncertainty, level = Uncertainty(), Flow().build()(torch.tensor([0.3, 0.6]).double())
    with torch.no_grad():
        uncertainty.slope.normal_(generator=torch.Generator().manual_seed(0))
        plain = uncertainty(level)
        with torch.autocast("cpu", torch.bfloat16):
            cast = uncertainty(level)
    assert cast.dtype == torch.float32 and torch.equal(plain, cast)
    assert math.isfinite(plain.sum())


def test_no_features_are_refused():
    with pytest.raises(ConfigError, match=r"loss\.uncertainty is built with 0 features"):
        Uncertainty(features=0)
