import pytest
import torch
from torch import nn

from kao.training import EMA, warmed_decay


def model_of(value):
    model = nn.Linear(2, 3)
    fill(model, value)
    return model


def fill(model, value):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


def fixed(decay):
    return lambda images, batch: decay


def test_the_average_of_a_model_that_stays_is_that_model():
    model = nn.Linear(5, 5)
    ema = EMA(model, warmed_decay(0.999))
    for step in range(1, 100):
        ema.update(4 * step, 4)
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ema.average[name], value, rtol=1e-6, atol=0)


def test_the_average_begins_as_the_model():
    model = model_of(3.0)
    ema = EMA(model, fixed(0.9))
    assert all((average == 3).all() for average in ema.average.values())


def test_the_average_of_a_model_that_jumped_nears_it_geometrically():
    # a_n = d^n a_0 + (1 - d^n) w
    model = model_of(2.0)
    ema = EMA(model, fixed(0.9))
    fill(model, 7.0)
    for step in range(1, 21):
        ema.update(step, 1)
    expected = torch.full((3, 2), 0.9**20 * 2 + (1 - 0.9**20) * 7)
    torch.testing.assert_close(ema.average["weight"], expected)


def test_the_average_is_the_weighted_sum_of_all_that_the_model_was():
    model = model_of(0.0)
    ema = EMA(model, fixed(0.8))
    values = [1.0, -2.0, 5.0]
    for step, value in enumerate(values, 1):
        fill(model, value)
        ema.update(step, 1)
    expected = sum(0.2 * 0.8 ** (2 - i) * value for i, value in enumerate(values))
    assert ema.average["bias"].tolist() == pytest.approx([expected] * 3)


def test_the_model_is_only_read():
    model = model_of(1.0)
    ema = EMA(model, fixed(0.5))
    fill(model, 2.0)
    ema.update(1, 1)
    assert (model.weight == 2).all()


def test_the_rule_is_told_images_and_batch():
    told = []
    ema = EMA(model_of(0.0), lambda images, batch: told.append((images, batch)) or 0.5)
    ema.update(64, 32)
    ema.update(96, 32)
    assert told == [(64, 32), (96, 32)]


@pytest.mark.parametrize(("updates", "decay"), [(1, 2 / 11), (2, 3 / 12), (90, 91 / 100)])
def test_a_warmed_decay_starts_small(updates, decay):
    # TensorFlow's ExponentialMovingAverage: min(decay, (1 + k) / (10 + k)).
    assert warmed_decay(0.999)(32 * updates, 32) == decay


def test_a_warmed_decay_rises_to_its_value_and_stays():
    rule = warmed_decay(0.99)
    decays = [rule(8 * step, 8) for step in range(1, 3000)]
    assert decays == sorted(decays)
    assert decays[-1] == 0.99


def test_running_statistics_are_averaged_and_counts_are_not():
    ema = EMA(nn.BatchNorm2d(3), fixed(0.5))
    assert set(ema.average) == {"weight", "bias", "running_mean", "running_var"}


def test_a_saved_average_goes_on_as_if_never_stopped():
    model = model_of(0.0)
    straight = EMA(model, fixed(0.7))
    fill(model, 1.0)
    straight.update(1, 1)
    resumed = EMA(model, fixed(0.7))
    resumed.load({name: value.clone() for name, value in straight.average.items()})
    for ema in (straight, resumed):
        ema.update(2, 1)
    assert all(torch.equal(resumed.average[n], straight.average[n]) for n in straight.average)


def test_what_was_loaded_is_not_changed_by_later_updates():
    model = model_of(0.0)
    ema = EMA(model, fixed(0.7))
    saved = {name: value + 1 for name, value in ema.average.items()}
    ema.load(saved)
    ema.update(1, 1)
    assert (saved["weight"] == 1).all()
