import io
import math
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from kao.diffusion import Denoiser, DenoisingLoss, Uniform, VPCosine, targets
from kao.errors import ConfigError, MissingExtraError
from kao.networks import Takes, UNetConfig
from kao.training.objective import Objective
from kao.training.optimizers import (
    OPTIMIZERS,
    AdamW,
    AdamW8bit,
    Adan,
    Muon,
    ScheduleFree,
    orthogonalised,
)

CPU = torch.device("cpu")
OPTIONS = {"rate": 0.01, "betas": (0.9, 0.99), "weight_decay": 0.1}
HERE = [name for name in OPTIMIZERS if name != "adamw8bit"]  # works on a GPU only


def small_network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.GroupNorm(4, 16),
        nn.Flatten(),
        nn.Linear(16 * 16, 4),
    )


def pairs(one, other):
    return zip(one.parameters(), other.parameters(), strict=True)


def problem():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(32, 3, 4, 4, generator=generator)
    return x, torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0], x[:, 1, 2, 2], x.amax((1, 2, 3))], 1)


def train(network, optimizer, steps):
    x, y = problem()
    losses = []
    for _ in range(steps):
        loss = ((network(x) - y) ** 2).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def built(name, network, **changes):
    return OPTIMIZERS[name]().build(network.named_parameters(), **{**OPTIONS, **changes})


# --- every method -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HERE)
def test_every_method_learns(name):
    network = small_network()
    losses = train(network, built(name, network), 60)
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize("name", HERE)
def test_resuming_changes_no_bit(name):
    whole = small_network()
    train(whole, built(name, whole), 7)

    network = small_network()
    optimizer = built(name, network)
    train(network, optimizer, 3)
    file = io.BytesIO()
    torch.save({"weights": network.state_dict(), "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    other = small_network(seed=5)
    other.load_state_dict(saved["weights"])
    resumed = built(name, other)
    resumed.load_state_dict(saved["optimizer"])
    train(other, resumed, 4)
    assert all(torch.equal(a, b) for a, b in pairs(whole, other))


@pytest.mark.parametrize("name", HERE)
def test_a_parameter_without_a_gradient_stays(name):
    network = small_network()
    optimizer = built(name, network)
    kept = network[2].weight.requires_grad_(False)
    before = kept.clone()
    train(network, optimizer, 2)
    assert torch.equal(kept, before)


@pytest.mark.parametrize("name", HERE)
def test_a_rate_of_zero_moves_nothing(name):
    network = small_network()
    optimizer = built(name, network)
    train(network, optimizer, 2)
    before = [p.clone() for p in network.parameters()]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    train(network, optimizer, 2)
    if name != "schedule_free":  # whose y still goes with the average
        assert all(torch.equal(a, b) for a, b in zip(before, network.parameters(), strict=True))


@pytest.mark.parametrize("name", HERE)
def test_weight_decay_alone_shrinks_a_weight_by_rate_times_decay(name):
    weight = nn.Parameter(torch.full((16, 16), 2.0))
    optimizer = OPTIMIZERS[name]().build([("w", weight)], **OPTIONS)
    weight.grad = torch.zeros(16, 16)
    optimizer.step()
    # Schedule-Free's first rate is corrected by sqrt(1 - beta2), Adan divides by 1 + rate decay.
    rate = 0.01 * (0.1 if name == "schedule_free" else 1.0)
    factor = 1 / (1 + rate * 0.1) if name == "adan" else 1 - rate * 0.1
    assert torch.allclose(weight, torch.full((16, 16), 2.0 * factor), rtol=1e-6)


@pytest.mark.parametrize("name", HERE)
def test_only_schedule_free_keeps_an_average(name):
    network = small_network()
    averages = OPTIMIZERS[name]().averages(built(name, network), network)
    assert list(averages) == (["schedule-free"] if name == "schedule_free" else [])


@pytest.mark.parametrize("name", HERE)
def test_every_method_works_on_a_cpu(name):
    OPTIMIZERS[name]().check(CPU)


# --- AdamW --------------------------------------------------------------------------------------


def test_adamw_is_torch_s():
    ours, theirs = small_network(), small_network()
    train(ours, built("adamw", ours), 5)
    reference = torch.optim.AdamW(
        theirs.parameters(), lr=0.01, betas=(0.9, 0.99), weight_decay=0.1, fused=True
    )
    train(theirs, reference, 5)
    assert all(torch.equal(a, b) for a, b in pairs(ours, theirs))


# --- Adan ---------------------------------------------------------------------------------------


def test_adan_follows_its_recursion():
    gradients, rate, decay, kept = [0.5, -0.2, 0.9, 0.1], 0.01, 0.1, (0.9, 0.8, 0.99)
    weight = nn.Parameter(torch.tensor([1.0]))
    optimizer = Adan(difference=kept[1]).build(
        [("w", weight)], rate=rate, betas=(kept[0], kept[2]), weight_decay=decay
    )
    # Xie et al. (2022), algorithm 1, with b = 1 - beta, zeros at the start, and corrected averages.
    b1, b2, b3 = kept
    theta, m, v, n, before = 1.0, 0.0, 0.0, 0.0, gradients[0]
    for k, g in enumerate(gradients, 1):
        weight.grad = torch.tensor([g])
        optimizer.step()
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * (g - before)
        n = b3 * n + (1 - b3) * (g + b2 * (g - before)) ** 2
        before = g
        move = m / (1 - b1**k) + b2 * v / (1 - b2**k)
        theta = (theta - rate * move / (math.sqrt(n / (1 - b3**k)) + 1e-8)) / (1 + rate * decay)
        assert weight.item() == pytest.approx(theta, rel=1e-5)


# --- Muon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 16, 144), (3, 48, 16), (1, 8, 80)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalised_matrices_have_singular_values_near_one(shape, dtype):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    result = orthogonalised(matrices.to(dtype))
    assert result.dtype == dtype
    values = torch.linalg.svdvals(result.float())
    assert 0.6 < values.min() and values.max() < 1.3


def test_an_orthogonalised_matrix_keeps_its_singular_vectors():
    matrix = torch.randn(1, 8, 32, generator=torch.Generator().manual_seed(0))
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ orthogonalised(matrix) @ vh.mT
    assert (inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))).abs().max() < 1e-4


def test_the_short_way_by_the_gram_matrix_is_the_long_way():
    from kao.training.optimizers.orthogonal import _by_gram, _directly

    x = torch.randn(2, 24, 90, generator=torch.Generator().manual_seed(0))
    x[0, :, 5:] *= 1e-3  # far from full rank
    x = x / torch.linalg.matrix_norm(x, keepdim=True)
    assert (_by_gram(x, 5) - _directly(x.double(), 5)).abs().max() < 1e-3


def test_a_matrix_of_zeros_stays_zero():
    assert torch.equal(orthogonalised(torch.zeros(1, 4, 6)), torch.zeros(1, 4, 6))


def test_a_step_of_muon_has_the_size_of_adamw_s():
    # Liu et al. (2025): entries of 0.2, root mean square, at every shape.
    for shape in [(32, 16, 3, 3), (16, 16, 1, 1), (64, 16)]:
        weight = nn.Parameter(torch.zeros(shape))
        optimizer = Muon().build([("w", weight)], **OPTIONS)
        weight.grad = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        optimizer.step()
        assert weight.square().mean().sqrt().item() / 0.01 == pytest.approx(0.2, rel=0.3)


def test_the_first_step_of_muon_is_the_orthogonalised_gradient():
    weight = nn.Parameter(torch.zeros(16, 16, 3, 3))
    gradient = torch.randn(16, 16, 3, 3, generator=torch.Generator().manual_seed(0))
    optimizer = Muon(factor=0.5).build([("w", weight)], **OPTIONS)
    weight.grad = gradient.clone()
    optimizer.step()
    expected = -0.01 * 0.5 * 12 * orthogonalised(gradient.reshape(1, 16, 144))  # sqrt(144) = 12
    assert torch.allclose(weight.reshape(1, 16, 144), expected, atol=1e-6)


def test_momentum_of_muon_is_nesterov_s():
    weight = nn.Parameter(torch.zeros(8, 8))
    optimizer = Muon(momentum=0.5).build([("w", weight)], **{**OPTIONS, "weight_decay": 0.0})
    generator = torch.Generator().manual_seed(0)
    g1, g2 = torch.randn(2, 8, 8, generator=generator)
    for g in (g1, g2):
        before = weight.detach().clone()
        weight.grad = g.clone()
        optimizer.step()
    m = 0.5 * (0.5 * g1) + 0.5 * g2
    expected = orthogonalised((0.5 * g2 + 0.5 * m)[None])[0]
    moved = (before - weight) / (0.01 * 0.2 * math.sqrt(8))
    assert torch.allclose(moved, expected, atol=1e-3)


def test_muon_leaves_outer_layers_vectors_and_embeddings_to_adamw():
    config = UNetConfig(width=16, levels=(1, 2), groups=4, attention=(8,), heads=1)
    network = config.build(channels=3, size=16, takes=Takes(augmentations=9))
    denoiser = Denoiser(network, VPCosine().build(), targets.v)
    objective = Objective(denoiser, DenoisingLoss(Uniform().build(denoiser.schedule)))
    named = dict(objective.named_parameters())
    matrices, rest = Muon().build(named.items(), **OPTIONS).param_groups
    names = {id(p): name for name, p in named.items()}
    layers = ("embed", "augmented", "conv_in", "conv_out")
    outer = tuple(f"denoiser.network.{name}." for name in layers)
    inside = {n for n, p in named.items() if p.ndim >= 2 and not n.startswith(outer)}
    assert {names[id(p)] for p in matrices["params"]} == inside
    assert {names[id(p)] for p in rest["params"]} == set(named) - inside
    assert all(any(name.startswith(layer) for name in set(named) - inside) for layer in outer)


def test_muon_leaves_what_the_loss_learns_to_adamw():
    wide = nn.Parameter(torch.zeros(16, 16))
    matrices, rest = (
        Muon()
        .build([("denoiser.a", wide), ("loss.b", nn.Parameter(wide.detach().clone()))], **OPTIONS)
        .param_groups
    )
    assert (len(matrices["params"]), len(rest["params"])) == (1, 1)
    assert matrices["params"][0] is wide


def test_what_muon_leaves_moves_as_with_adamw():
    network = small_network()
    other = small_network()
    muon = Muon(others=("0", "5")).build(network.named_parameters(), **OPTIONS)
    adamw = AdamW().build(other.named_parameters(), **OPTIONS)
    x, y = problem()
    for model, optimizer in ((network, muon), (other, adamw)):
        ((model(x) - y) ** 2).mean().backward()
        optimizer.step()
    equal = {
        n: torch.equal(p, dict(other.named_parameters())[n]) for n, p in network.named_parameters()
    }
    assert [name for name, same in equal.items() if not same] == ["2.weight"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"momentum": 1.0}, "momentum = 1.0; expected 0 or more, below 1"),
        ({"momentum": math.nan}, "momentum = nan; expected"),
        ({"factor": 0.0}, "factor = 0.0; expected a number above 0"),
        ({"factor": math.inf}, "factor = inf; expected"),
        ({"least": 0}, "least = 0; expected a side of 1 or more"),
    ],
)
def test_options_of_muon_outside_their_range_are_refused(options, words):
    with pytest.raises(ConfigError) as caught:
        Muon(**options)
    assert f"optimizer.method.{words}" in str(caught.value)


def test_a_network_without_a_matrix_for_muon_is_refused():
    with pytest.raises(ConfigError, match=r'"muon" finds no matrix to train: none with sides of 8'):
        Muon().build(nn.Linear(4, 4).named_parameters(), **OPTIONS)


# --- Schedule-Free ------------------------------------------------------------------------------


def test_schedule_free_follows_its_recursion():
    gradients, rates = [0.5, -0.2, 0.9, 0.1], [0.01, 0.02, 0.02, 0.015]
    weight = nn.Parameter(torch.tensor([1.0]))
    model = nn.Module()
    model.w = weight
    method = ScheduleFree(momentum=0.8)
    optimizer = method.build([("w", weight)], rate=0.02, betas=(0.9, 0.99), weight_decay=0.1)
    average = method.averages(optimizer, model)["schedule-free"]
    assert average.average["w"].item() == 1.0
    # Defazio et al. (2024), algorithm 1.
    x = z = 1.0
    v = total = 0.0
    for t, (g, rate) in enumerate(zip(gradients, rates, strict=True), 1):
        optimizer.param_groups[0]["lr"] = rate
        weight.grad = torch.tensor([g])
        optimizer.step()
        y = 0.2 * z + 0.8 * x
        v = 0.99 * v + 0.01 * g**2
        corrected = rate * math.sqrt(1 - 0.99**t)
        z -= corrected * (g / (math.sqrt(v) + 1e-8) + 0.1 * y)
        total += corrected**2
        x += corrected**2 / total * (z - x)
        assert weight.item() == pytest.approx(0.2 * z + 0.8 * x, rel=1e-5)
        assert average.average["w"].item() == pytest.approx(x, rel=1e-5)


def test_the_average_of_schedule_free_follows_from_weights_and_state():
    network = small_network()
    method = ScheduleFree()
    optimizer = method.build(network.named_parameters(), **OPTIONS)
    average = method.averages(optimizer, network)["schedule-free"]
    train(network, optimizer, 3)
    before = {name: value.clone() for name, value in average.average.items()}
    average.update(96, 32)
    average.load({name: torch.zeros_like(value) for name, value in before.items()})
    assert set(before) == set(network.state_dict())
    assert all(torch.equal(before[name], value) for name, value in average.average.items())


@pytest.mark.parametrize("momentum", [0.0, 1.0, math.nan])
def test_a_momentum_of_schedule_free_outside_its_range_is_refused(momentum):
    with pytest.raises(ConfigError, match=r"method\.momentum = .*; expected a number between 0"):
        ScheduleFree(momentum=momentum)


# --- the others' mistakes -----------------------------------------------------------------------


@pytest.mark.parametrize("difference", [1.0, -0.1, math.nan])
def test_a_difference_of_adan_outside_its_range_is_refused(difference):
    with pytest.raises(ConfigError, match=r"method\.difference = .*; expected 0 or more, below 1"):
        replace(Adan(), difference=difference)


def test_eight_bits_are_refused_on_a_cpu():
    with pytest.raises(ConfigError, match=r'"adamw8bit" needs a GPU .* take "adamw"'):
        AdamW8bit().check(CPU)


def test_a_missing_package_for_eight_bits_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"extra 'adamw8bit'"), torch.device("meta"):
        AdamW8bit().build(nn.Linear(2, 2).named_parameters(), **OPTIONS)
