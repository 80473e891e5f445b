import math

import pytest
import torch

from kao.training.spikes import SpikeWatch


def losses_of_batches(count, *, batch=32, seed=0):
    """Means over batches whose images differ as noise levels do: by an order of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, batch, generator=generator).exp().mean(1).tolist()


def spikes(losses):
    """Place and usual loss of each spike."""
    watch = SpikeWatch()
    told = [(i, watch(loss)) for i, loss in enumerate(losses)]
    return [(i, usual) for i, usual in told if usual is not None]


@pytest.mark.parametrize("batch", [1, 4, 32, 256])
def test_the_scatter_of_batches_holds_no_spike(batch):
    for seed in range(3):
        assert spikes(losses_of_batches(1000, batch=batch, seed=seed)) == []


def test_a_loss_ten_times_the_usual_is_a_spike():
    losses = losses_of_batches(500)
    losses[400] *= 10
    ((place, usual),) = spikes(losses)
    assert place == 400
    assert usual == pytest.approx(math.sqrt(math.e), rel=0.1)


def test_a_run_that_only_falls_has_no_spike():
    assert spikes([3 * loss / (1 + i) for i, loss in enumerate(losses_of_batches(1000))]) == []


def test_a_spike_of_several_steps_counts_once_and_one_that_comes_back_again():
    losses = losses_of_batches(600)
    for i in (300, 301, 302, 400):
        losses[i] *= 20
    assert [place for place, _ in spikes(losses)] == [300, 400]


def test_a_loss_that_stays_up_becomes_usual():
    losses = losses_of_batches(1500)
    losses = [20 * loss if i >= 500 else loss for i, loss in enumerate(losses)]
    losses[1400] *= 20
    first, second = spikes(losses)
    assert first[0] == 500 and second[0] == 1400
    assert second[1] == pytest.approx(20 * first[1], rel=0.2)


def test_a_single_spike_does_not_move_what_is_usual():
    losses = losses_of_batches(400)
    apart = [*losses, 50.0, *losses[:10], 50.0]
    before, after = (usual for _, usual in spikes(apart))
    assert after == pytest.approx(before, rel=0.02)


def test_losses_that_never_change_make_no_spike_of_a_small_rise():
    assert spikes([1.0] * 200 + [1.4]) == []
    assert spikes([1.0] * 200 + [1.6]) == [(200, 1.0)]


def test_nothing_is_judged_before_something_is_usual():
    assert spikes([1.0] * 49 + [100.0]) == []
    assert spikes([1.0] * 50 + [100.0]) == [(50, 1.0)]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, 0.0, -1.0])
def test_what_has_no_logarithm_is_passed_over(loss):
    assert spikes([1.0] * 100 + [loss] * 400 + [3.0]) == [(500, 1.0)]
