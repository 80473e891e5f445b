import torch

from kao.pixels import to_float, to_uint8


def test_every_byte_survives_the_way_to_floats_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)
    assert to_float(every)[0] == -1 and to_float(every)[-1] == 1


def test_floats_are_rounded_to_the_nearest_byte_and_clamped():
    x = torch.tensor([-9.0, -1.0, 99.6 / 127.5 - 1, 100.4 / 127.5 - 1, 1.0, 9.0])
    assert to_uint8(x).tolist() == [0, 0, 100, 100, 255, 255]


def test_what_is_not_finite_becomes_black_or_white():
    x = torch.tensor([torch.nan, -torch.inf, torch.inf])
    assert to_uint8(x).tolist() == [0, 0, 255]


def test_half_precision_is_rounded_as_its_float32_value():
    x = torch.linspace(-1, 1, 97).bfloat16()
    assert torch.equal(to_uint8(x), to_uint8(x.float()))


def test_what_comes_in_is_left_as_it_was():
    x = torch.tensor([-9.0, torch.nan, 0.5])
    to_uint8(x)
    assert x[0] == -9 and x[1].isnan() and x[2] == 0.5
