import pytest
import torch
from torch import nn

from kao.training import scale_rate
from kao.training.optimizers import OPTIMIZERS

HERE = [name for name in OPTIMIZERS if name != "adamw8bit"]  # which needs a GPU


def problem():
    torch.manual_seed(0)
    return nn.ModuleDict({"old": nn.Linear(12, 12), "new": nn.Linear(12, 12)})


def stepped(name, scale, *, steps=3, model=None, optimizer=None):
    model = model or problem()
    if optimizer is None:
        method = OPTIMIZERS[name]()
        named = list(model.named_parameters())
        optimizer = method.build(named, rate=1e-2, betas=(0.9, 0.99), weight_decay=0.0)
        if scale is not None:
            scale_rate(optimizer, model["old"].parameters(), scale)
    x = torch.randn(16, 12, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * group.get("scale", 1.0)  # as the trainer sets it
        model["new"](model["old"](x).tanh()).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return model, optimizer


def moved(model, part):
    pairs = zip(model[part].parameters(), problem()[part].parameters(), strict=True)
    return sum((a - b).norm().item() for a, b in pairs)


@pytest.mark.parametrize("name", HERE)
def test_what_is_slowed_moves_less_and_the_rest_as_before(name):
    plain, _ = stepped(name, None, steps=1)
    slow, _ = stepped(name, 0.1, steps=1)
    assert moved(slow, "old") == pytest.approx(0.1 * moved(plain, "old"), rel=0.02)
    assert moved(slow, "new") == pytest.approx(moved(plain, "new"), rel=1e-5)


@pytest.mark.parametrize("name", HERE)
def test_every_parameter_is_in_one_group(name):
    model, optimizer = stepped(name, 0.1, steps=0)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())


@pytest.mark.parametrize("name", HERE)
def test_a_slowed_optimiser_goes_on_from_its_state(name):
    straight, _ = stepped(name, 0.1, steps=4)
    model, optimizer = stepped(name, 0.1, steps=2)
    again, fresh = stepped(name, 0.1, steps=0)
    again.load_state_dict(model.state_dict())
    fresh.load_state_dict(optimizer.state_dict())
    stepped(name, 0.1, steps=2, model=again, optimizer=fresh)
    for one, other in zip(straight.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("whole", [True, False])
def test_a_scale_that_a_group_has_already_is_multiplied(whole):
    model = problem()
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.param_groups[0]["scale"] = 0.5
    scale_rate(optimizer, (model if whole else model["old"]).parameters(), 0.1)
    scales = [group["scale"] for group in optimizer.param_groups]
    assert scales == pytest.approx([0.05] if whole else [0.5, 0.05])


def test_where_all_of_a_group_is_slowed_it_stays_one():
    model = problem()
    optimizer = torch.optim.AdamW(model.parameters())
    scale_rate(optimizer, model.parameters(), 0.5)
    assert [group["scale"] for group in optimizer.param_groups] == [0.5]
