import math
from dataclasses import replace

import pytest
import torch
from dits import LABEL, OPTIONS, TINY, asleep, awake, every_option, pictures
from torch import nn

from kao.diffusion import Denoiser, DenoisingLoss, Uniform, VPCosine, targets
from kao.errors import ConfigError
from kao.networks import Conditions, DiTConfig
from kao.networks.cost import activation_bytes
from kao.networks.dit import DiTBlock
from kao.networks.positions import places, rotation, sincos
from kao.networks.recompute import recompute
from kao.networks.token_attention import CrossAttention, SelfAttention
from kao.training import Objective
from kao.training.optimizers import OPTIMIZERS
from kao.training.parallel import units

# --- adaLN-Zero ---------------------------------------------------------------------------------


@every_option
def test_each_block_begins_as_the_identity(config):
    network = asleep(config, tokens=5)
    h, embedding = torch.randn(2, 16, 16), torch.randn(2, 16)
    turn = rotation(places(4, 4, of=4), 8) if network.rotary else None
    for block in network.layers:
        assert torch.equal(block(h, embedding, turn, torch.randn(2, 3, 5)), h)


def test_a_block_is_scaled_shifted_and_gated_by_the_noise_level():
    # Peebles & Xie (2023), figure 3, "DiT Block with adaLN-Zero", written out.
    torch.manual_seed(0)
    block = DiTBlock(TINY, tokens=0).double()
    nn.init.normal_(block.level.weight)
    h, embedding = torch.randn(2, 9, 16).double(), torch.randn(2, 16).double()
    b1, g1, a1, b2, g2, a2 = block.level(embedding)[:, None].chunk(6, dim=2)

    def norm(x):
        mean = x.mean(-1, keepdim=True)
        return (x - mean) / ((x - mean).square().mean(-1, keepdim=True) + 1e-6).sqrt()

    expected = h + a1 * block.attention(norm(h) * (1 + g1) + b1, None)
    expected = expected + a2 * block.mlp(norm(expected) * (1 + g2) + b2)
    torch.testing.assert_close(block(h, embedding, None, None), expected)


def test_the_norm_rms_leaves_the_mean():
    torch.manual_seed(0)
    h = torch.randn(2, 9, 16) + 3
    norm = DiTBlock(replace(TINY, norm="rms"), tokens=0).norm_mlp
    torch.testing.assert_close(norm(h), h / h.square().mean(-1, keepdim=True).sqrt())
    assert list(norm.parameters()) == []


# --- patches ------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_come_back_where_they_were_cut(patch):
    # With nothing between the first and the last layer, whose weights copy all pixels of a patch.
    pixels = 3 * patch**2
    config = DiTConfig(width=4 * pixels, depth=1, heads=1, patch=patch)
    network = asleep(config, size=8)
    with torch.no_grad():
        kernel = torch.eye(4 * pixels, pixels).view(4 * pixels, 3, patch, patch)
        network.conv_in.weight.copy_(kernel)
        network.conv_out.weight.copy_(torch.eye(pixels, 4 * pixels)[:, :, None, None])
    network.norm_out = nn.Identity()
    x = pictures(8, 12)
    at = sincos(places(8 // patch, 12 // patch, of=8 // patch), 4 * pixels)[..., :pixels]
    fixed = nn.functional.fold(at.mT, (8, 12), patch, stride=patch)
    torch.testing.assert_close(network(x, LABEL), x + fixed)


def test_a_picture_that_does_not_fall_into_patches_is_refused_and_not_cut():
    with pytest.raises(ConfigError, match="of 18 x 16 pixels, and both sides must be multiples"):
        asleep(TINY)(pictures(16, 18), LABEL)


@pytest.mark.parametrize("positions", ["sincos", "rotary"])
def test_sizes_other_than_that_it_was_built_for_can_be_shown(positions):
    network = awake(replace(TINY, positions=positions), size=36)
    for height, width in ((36, 36), (20, 20), (12, 28)):
        x = pictures(height, width)
        assert network(x, LABEL).shape == x.shape


# --- attention ----------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_attention_is_the_softmax_of_scaled_products(heads):
    # Vaswani et al. (2017), eq. 1, written out a head at a time.
    torch.manual_seed(0)
    attention = SelfAttention(16, heads=heads, dropout=0.0, qk_norm=False)
    h = torch.randn(2, 9, 16)
    q, k, v = attention.qkv(h).chunk(3, dim=2)
    mixed = []
    for head in range(heads):
        own = slice(head * 16 // heads, (head + 1) * 16 // heads)
        weights = (q[..., own] @ k[..., own].mT / (16 / heads) ** 0.5).softmax(-1)
        mixed.append(weights @ v[..., own])
    torch.testing.assert_close(attention(h, None), attention.out(torch.cat(mixed, dim=2)))


def test_with_qk_norm_the_length_of_queries_and_keys_does_not_matter():
    torch.manual_seed(0)
    plain, normed = (SelfAttention(16, heads=2, dropout=0.0, qk_norm=on) for on in (False, True))
    h = torch.randn(2, 9, 16)
    for attention, changes in ((plain, True), (normed, False)):
        before = attention(h, None)
        with torch.no_grad():
            attention.qkv.weight[:32] *= 50
        same = torch.allclose(before, attention(h, None), rtol=1e-3, atol=1e-4)
        assert same is not changes


# --- a text -------------------------------------------------------------------------------------


def test_a_network_reads_tokens():
    network, x = awake(TINY, tokens=5), pictures()
    tokens = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    read = network(x, LABEL, Conditions(tokens=tokens))
    other = network(x, LABEL, Conditions(tokens=torch.stack([tokens[0], -tokens[1]])))
    torch.testing.assert_close(read[0], other[0])
    assert (read[1] - other[1]).abs().mean() > 1e-3


def test_the_order_of_tokens_is_that_of_their_encoder_alone():
    network, x = awake(TINY, tokens=5), pictures()
    tokens = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(2))
    backwards = Conditions(tokens=tokens.flip(1))
    torch.testing.assert_close(
        network(x, LABEL, Conditions(tokens=tokens)), network(x, LABEL, backwards)
    )


@pytest.mark.parametrize("qk_norm", [False, True])
def test_tokens_of_zeros_say_as_much_as_none(qk_norm):
    network, x = awake(replace(TINY, qk_norm=qk_norm), tokens=5), pictures()
    nothing = Conditions(tokens=torch.zeros(2, 3, 5))
    assert torch.equal(network(x, LABEL), network(x, LABEL, nothing))


def test_what_is_read_begins_as_nothing_and_learns():
    network, tokens = awake(TINY, tokens=5), torch.randn(2, 3, 5)
    readers = [m for m in network.modules() if isinstance(m, CrossAttention)]
    assert len(readers) == TINY.depth
    begun = CrossAttention(16, tokens=5, heads=2, dropout=0.0, qk_norm=False)
    assert begun(torch.randn(2, 9, 16), tokens).abs().max() == 0
    network(pictures(), LABEL, Conditions(tokens=tokens)).square().mean().backward()
    assert all(p.grad.norm() > 1e-6 for reader in readers for p in reader.parameters())


# --- classes ------------------------------------------------------------------------------------


def test_a_class_is_added_to_the_noise_level():
    network, x = awake(TINY, classes=3), pictures()
    said = network(x, LABEL, Conditions(label=torch.tensor([1, 1])))
    with torch.no_grad():
        network.embed[2].bias.add_(network.classes.weight[1] - network.classes.weight[3])
    torch.testing.assert_close(network(x, LABEL), said)


# --- memory, precision, processes ---------------------------------------------------------------


def test_recomputing_blocks_keeps_less_and_all_least():
    with torch.device("meta"):
        network = replace(TINY, depth=4).build(channels=3, size=32)
        kept = {}
        for mode in ("none", "blocks", "all"):
            recompute(network, mode)
            kept[mode] = activation_bytes(network, (3, 32, 32), batch=2)
    assert kept["all"] < 0.5 * kept["blocks"] < 0.5 * 0.8 * kept["none"]


@every_option
def test_what_blocks_add_up_stays_in_float32_under_bf16(config):
    network, met = awake(config), []
    for block in network.layers:
        block.register_forward_hook(lambda module, args, h: met.append(h.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert network(pictures(), LABEL).dtype is torch.bfloat16
    assert met == [torch.float32] * TINY.depth


def test_each_block_is_a_unit_whose_weights_are_fetched_together():
    network = asleep(TINY)
    schedule = VPCosine().build()
    loss = DenoisingLoss(Uniform().build(schedule))
    objective = Objective(Denoiser(network, schedule, targets.v), loss)
    assert units(objective) == [*network.layers, network]


@pytest.mark.parametrize("name", ["muon", "adamw"])
@every_option
def test_it_learns_with(name, config):
    network, x = asleep(config, classes=2, augmentations=3), pictures()
    said = Conditions(label=torch.tensor([0, 1]), augmentation=torch.eye(2, 3))
    named = [(f"denoiser.network.{n}", p) for n, p in network.named_parameters()]
    optimizer = OPTIMIZERS[name]().build(named, rate=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
    losses = []
    for _ in range(30):
        loss = (network(x, LABEL, said) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_muon_leaves_what_is_no_layer_inside_to_adamw():
    network = asleep(OPTIONS["learned"], size=64, classes=20, augmentations=20)
    named = [(f"denoiser.network.{n}", p) for n, p in network.named_parameters()]
    optimizer = OPTIMIZERS["muon"]().build(named, rate=1e-3, betas=(0.9, 0.99), weight_decay=0.0)
    names = {id(p): n for n, p in network.named_parameters()}
    taken = {names[id(p)].split(".")[0] for p in optimizer.param_groups[0]["params"]}
    assert taken == {"layers", "level_out"}


# --- what does not fit --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "size", "words"),
    [
        ({"depth": 0}, 16, "network.width = 16, depth = 0, heads = 2 and patch = 4 must all be 1"),
        ({"patch": 0}, 16, "patch = 0 must all be 1 or more."),
        ({"heads": 3}, 16, "network.heads = 3 must divide network.width = 16: change heads or"),
        ({"width": 18}, 16, 'network.width = 18; network.positions = "sincos" needs a multiple of'),
        ({"heads": 8, "positions": "rotary"}, 16, "gives heads of 2 channels, and network.positio"),
        ({"mlp_ratio": math.nan}, 16, "network.mlp_ratio = nan; expected a number above 0"),
        ({"mlp_ratio": math.inf}, 16, "network.mlp_ratio = inf; expected"),
        ({"mlp_ratio": 1e20}, 16, "network.mlp_ratio = 1e+20; expected"),
        ({"mlp_ratio": 0.01}, 16, "network.mlp_ratio = 0.01; expected"),
        ({"dropout": 1.0}, 16, "network.dropout = 1.0; expected 0 or more, below 1."),
        ({"dropout": math.nan}, 16, "network.dropout = nan; expected"),
        ({"mlp_norm_eps": 0.0}, 16, "network.mlp_norm_eps = 0.0; expected a small number above 0"),
        ({"mlp_norm_eps": math.nan}, 16, "network.mlp_norm_eps = nan; expected"),
        ({}, 18, "a multiple of 4, and data.size = 18: try 16, or another patch."),
        ({}, 1, "try 4, or another patch."),
    ],
)
def test_what_does_not_fit_is_told_with_what_would(changes, size, words):
    with pytest.raises(ConfigError) as caught:
        replace(TINY, **changes).build(channels=3, size=size)
    assert words in str(caught.value)


def test_learned_positions_cannot_be_told_where_a_part_lies():
    with pytest.raises(ConfigError, match="cannot be told where a part of one lies"):
        asleep(OPTIONS["learned"], coordinates=True)
