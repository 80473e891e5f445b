"""A base's weights in networks that see, say or are told something else."""

from dataclasses import replace

import pytest
import torch

from kao.config import Request, RunConfig, dump
from kao.config.conditioning import ConditionsConfig
from kao.errors import ConfigError
from kao.networks import Conditions
from kao.networks.lora import begin
from kao.runs.adapting import adapted
from kao.runs.beginning import _moved

WORDS = ("network.width=8", "network.levels=[1,2]", "network.attention=[8]", "data.size=16")
DIT = ("network=dit", "network.width=16", "network.depth=1", "network.heads=2", "network.patch=4")


def config(*words, names=()):
    made = Request.of(None, words or WORDS).over(dump(RunConfig()))
    return replace(made, conditions=ConditionsConfig(classes=bool(names), names=names))


def filled(made):
    torch.manual_seed(0)
    denoiser = made.build_denoiser().eval()
    for parameter in denoiser.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return denoiser


def tuned(there, now):
    """The base, and the new denoiser with what fits of it."""
    base = filled(there)
    fitted = adapted(base.state_dict(), there=there, now=now)
    denoiser = now.build_denoiser().eval()
    begin(denoiser, fitted.weights)
    return base, denoiser, fitted


def said(denoiser, condition=None, size=16):
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return denoiser.output(x, torch.tensor(0.4, dtype=torch.float64), condition)


@pytest.mark.parametrize("network", [(), DIT], ids=["unet", "dit"])
@pytest.mark.parametrize(
    ("word", "new"),
    [
        ("data.augment.edm=0.12", ("augmented.weight",)),
        ("training.curriculum=patches", ("conv_in.weight",)),
    ],
)
def test_what_is_told_more_says_at_first_what_the_base_said(network, word, new):
    words = (*WORDS, *network) if not network else (*network, "data.size=16")
    there, now = config(*words), config(*words, word)
    base, denoiser, fitted = tuned(there, now)
    assert fitted.new == new
    torch.testing.assert_close(said(denoiser), said(base))
    told = Conditions(augmentation=torch.ones(2, 9)) if "edm" in word else None
    torch.testing.assert_close(said(denoiser, told), said(base))


def test_the_channel_of_ones_of_a_magnitude_preserving_network_stays():
    words = ("network=edm2", "network.width=8", "network.levels=[1,2]", "network.attention=[8]")
    there = config(*words, "network.head_width=8", "data.size=16")
    base, denoiser, _ = tuned(there, there)
    assert torch.equal(said(denoiser), said(base))


def test_a_stem_keeps_its_columns():
    words = (*WORDS[:2], "network.attention=[]", "network.stem=2", "data.size=16")
    base, denoiser, _ = tuned(config(*words), config(*words, "training.curriculum=patches"))
    torch.testing.assert_close(said(denoiser), said(base))


def test_a_new_variance_leaves_the_picture_alone_and_begins_half_way():
    base, denoiser, fitted = tuned(config(), config(*WORDS, "loss.bound=0.001"))
    y, variance = denoiser.split(said(denoiser))
    torch.testing.assert_close(y, said(base))
    assert fitted.new == ("conv_out.weight", "conv_out.bias")
    assert torch.equal(variance, torch.full_like(variance, 0.5))


def test_a_variance_that_is_left_out_leaves_the_picture_alone():
    base, denoiser, _ = tuned(config(*WORDS, "loss.bound=0.001"), config())
    torch.testing.assert_close(said(denoiser), base.split(said(base))[0])


def test_classes_of_equal_names_are_kept_and_new_ones_begin_as_none():
    there, now = config(names=("cat", "dog")), config(names=("dog", "fox"))
    base, denoiser, fitted = tuned(there, now)

    def of(label):
        return Conditions(label=torch.tensor([label, label]))

    torch.testing.assert_close(said(denoiser, of(0)), said(base, of(1)))  # dog
    torch.testing.assert_close(said(denoiser, of(1)), said(base, of(2)))  # fox: no class
    torch.testing.assert_close(said(denoiser), said(base))
    assert fitted.new == ("classes.weight",)
    assert any("new are fox" in note for note in fitted.notes)


def test_classes_that_are_left_out_leave_what_was_drawn_without_one():
    base, denoiser, fitted = tuned(config(names=("cat", "dog")), config())
    torch.testing.assert_close(said(denoiser), said(base))
    assert "classes" in fitted.notes[1]


def test_a_grey_base_sees_the_first_channel():
    now = config()
    weights = filled(now).state_dict()
    grey = dict(weights)
    grey["network.conv_in.weight"] = weights["network.conv_in.weight"][:, :1]
    for name in ("network.conv_out.weight", "network.conv_out.bias"):
        grey[name] = weights[name][:1]
    fitted = adapted(grey, there=now, now=now)
    assert set(fitted.new) == {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    kept = fitted.weights["network.conv_in.weight"]
    assert torch.equal(kept[:, :1], grey["network.conv_in.weight"]) and not kept[:, 1:].any()
    assert torch.equal(fitted.weights["network.conv_out.bias"][:1], grey["network.conv_out.bias"])
    assert any("The base saw 1 channels and this run has 3" in note for note in fitted.notes)


def test_at_another_size_attention_stays_where_it_was_in_the_network():
    there = config()
    grown = _moved(replace(there, data=replace(there.data, size=32)), there, {})
    assert grown.network.attention == (16,)
    base, denoiser, fitted = tuned(there, grown)
    assert fitted.new == ()
    torch.testing.assert_close(said(denoiser, size=32), said(base, size=32))


def test_learned_positions_are_spread_over_another_size():
    words = (*DIT, "network.positions=learned")
    there, now = config(*words, "data.size=16"), config(*words, "data.size=32")
    base, _, fitted = tuned(there, now)
    before = base.state_dict()["network.positions"].reshape(4, 4, -1)
    after = fitted.weights["network.positions"].reshape(8, 8, -1)
    assert fitted.new == ()
    torch.testing.assert_close(after.mean((0, 1)), before.mean((0, 1)), atol=0.05, rtol=0.0)
    assert (after[0, 0] - before[0, 0]).norm() < (after[0, 0] - before[3, 3]).norm()


def test_another_network_is_refused_with_the_keys():
    there, now = config(), config(*WORDS, "network.width=16")
    with pytest.raises(ConfigError, match=r"network.width = 8 there and 16 now"):
        tuned(there, now)


def test_it_says_how_much_is_kept():
    *_, fitted = tuned(config(), config())
    count = sum(p.numel() for p in config().build_denoiser("meta").parameters())
    assert fitted.notes == [f"{count:,} weights of the base are kept as they are."]
