import math

import pytest
import torch
from torch import nn

from kao.diffusion import norms
from kao.diffusion.norms import NORMS, Huber, Mixed
from kao.errors import ConfigError


def made(name: str) -> norms.Norm:
    entry = NORMS[name]
    return entry() if isinstance(entry, type) else entry


@pytest.mark.parametrize("norm", NORMS)
def test_norms_are_even_elementwise_and_zero_only_at_zero(norm):
    penalty = made(norm)
    r = torch.linspace(-3, 3, 7)
    value = penalty(r)
    assert value.shape == r.shape
    assert torch.equal(value, penalty(-r))
    assert value[3] == 0 and (value[:3] > 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_norms_keep_the_dtype_of_the_residual(norm):
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        assert made(norm)(torch.ones(2, dtype=dtype)).dtype == dtype


def test_norms_are_their_textbook_formulae():
    r = torch.linspace(-4, 4, 41, dtype=torch.float64)
    zero = torch.zeros_like(r)
    functional = nn.functional
    expected = functional.huber_loss(r, zero, reduction="none", delta=1.5)
    torch.testing.assert_close(Huber(1.5)(r), expected)
    torch.testing.assert_close(norms.l1(r), functional.l1_loss(r, zero, reduction="none"))
    torch.testing.assert_close(norms.l2(r), functional.mse_loss(r, zero, reduction="none"))
    torch.testing.assert_close(Mixed(0.25)(r), 0.25 * r.abs() + 0.75 * r**2)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Huber(-1.0), "norm.delta = -1.0"),
        (lambda: Huber(math.nan), "norm.delta = nan"),
        (lambda: Huber(math.inf), "norm.delta = inf"),
        (lambda: Mixed(1.5), "norm.share = 1.5"),
        (lambda: Mixed(-0.1), "norm.share = -0.1"),
        (lambda: Mixed(math.nan), "norm.share = nan"),
    ],
)
def test_options_out_of_range_are_refused_by_name(make, words):
    with pytest.raises(ConfigError, match=words):
        make()
