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
EDM2 = (
    *("network=edm2", "network.width=8", "network.levels=[1,2]", "network.attention=[]"),
    *("network.head_width=8", "data.size=16"),
)
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


@pytest.mark.parametrize("stem", [1, 2])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "word",
    [
        *("training.curriculum=patches", "data.augment.edm=0.12", "loss.bound=0.001"),
        *("data.size=32", "network.dropout=0.0"),
    ],
)
def test_a_magnitude_preserving_network_says_at_first_what_a_colour_base_said(word, stem, training):
    words = (*EDM2, f"network.stem={stem}")
    base, denoiser, fitted = tuned(config(*words), config(*words, word))
    base.train(training), denoiser.train(training)
    torch.testing.assert_close(said(denoiser)[:, :3], said(base))
    assert not any("grey" in note or "channels" in note for note in fitted.notes)


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


def of_channels(made, channels, *, kinds=1):
    """A filled network of a configuration, but of pictures of so many channels."""
    torch.manual_seed(0)
    network = made.network.build(
        channels=channels, size=made.data.size, outputs=kinds * channels
    ).eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network, {f"network.{name}": value for name, value in network.state_dict().items()}


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (WORDS, 1),
        ((*WORDS, "loss.bound=0.001"), 2),
        ((*WORDS[:2], "network.attention=[]", "network.stem=2", "data.size=16"), 1),
        ((*DIT, "data.size=16", "loss.bound=0.001"), 2),
        (EDM2, 1),
        ((*EDM2, "network.stem=2", "loss.bound=0.001"), 2),
    ],
    ids=["unet", "variance", "stem", "dit", "edm2", "edm2 with stem and variance"],
)
def test_of_grey_pictures_it_says_in_each_channel_what_a_grey_base_said(words, kinds):
    made = config(*words)
    grey, weights = of_channels(made, 1, kinds=kinds)
    fitted = adapted(weights, there=made, now=made)
    outer = {"conv_in.weight", "conv_out.weight", "conv_out.bias"}
    assert set(fitted.new) == {name for name in outer if f"network.{name}" in weights}
    assert any(note.startswith("The base saw grey pictures") for note in fitted.notes)
    network = made.build_denoiser().network.eval()
    network.load_state_dict({k.removeprefix("network."): v for k, v in fitted.weights.items()})
    x, label = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)), torch.ones(2)
    with torch.no_grad():
        expected = grey(x, label, None).repeat_interleave(3, dim=1)
        torch.testing.assert_close(network(x.repeat(1, 3, 1, 1), label, None), expected)


def test_of_other_channels_those_that_both_have_are_kept():
    now = config()
    _, weights = of_channels(now, 4)
    fitted = adapted(weights, there=now, now=now)
    for name in ("conv_out.weight", "conv_out.bias"):
        assert torch.equal(fitted.weights[f"network.{name}"], weights[f"network.{name}"][:3])
    kept = fitted.weights["network.conv_in.weight"]
    assert torch.equal(kept, weights["network.conv_in.weight"][:, :3])
    assert any("The base saw 4 channels and this run has 3" in note for note in fitted.notes)


def test_places_that_are_told_no_more_are_said_to_change_the_pictures():
    base, denoiser, fitted = tuned(config(*WORDS, "training.curriculum=patches"), config())
    assert not torch.allclose(said(denoiser), said(base), atol=0.01)
    (note,) = (note for note in fitted.notes if "where in a picture it looks" in note)
    assert note.endswith("so its pictures change at first.")


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("loss.uncertainty=true", "loss.uncertainty = true"),
        ("loss.times=loss_moment", "loss.times"),
        ("loss.times=warped", "loss.times"),
    ],
)
def test_it_says_that_what_the_loss_learns_begins_anew(word, key):
    now = config(*WORDS, word)
    *_, fitted = tuned(now, now)
    assert fitted.notes[-1] == (
        f"What the loss learns of the noise levels ({key}) begins anew, without what it learned "
        f"with the base."
    )


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


def test_what_a_base_is_and_how_classes_are_told_is_no_reason_for_a_misfit():
    there = config(names=("cat", "dog"))
    now = config(*WORDS, "network.width=16", names=("dog", "fox"))
    now = replace(now, finetune=replace(now.finetune, base="there", sha256="00", freeze=1))
    now = replace(now, conditions=replace(now.conditions, counts=(3, 4), drop=0.2))
    with pytest.raises(ConfigError, match=r"network.width = 8 there and 16 now") as caught:
        tuned(there, now)
    assert "finetune" not in str(caught.value) and "conditions" not in str(caught.value)


def test_it_says_how_much_is_kept():
    *_, fitted = tuned(config(), config())
    count = sum(p.numel() for p in config().build_denoiser("meta").parameters())
    assert fitted.notes == [f"{count:,} weights begin as the base has them."]
