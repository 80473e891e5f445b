"""Steps whose loss or gradient is not finite, seen from a network of three layers."""

import math
from dataclasses import replace

import pytest
import torch
from several import several
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from kao.errors import TrainingError
from kao.processes import join
from kao.training import EMA, warmed_decay
from kao.training.bad_layer import LOSS, NOWHERE, first_bad_layer
from kao.training.guard import Guard, Met

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")
MET = Met(
    images=0,
    indices=[4, 5],
    t=[0.1, 0.2],
    log_snr=[1.0, 2.0],
    losses=[NAN, 1.0],
    gradient_norm=NAN,
    learning_rate=0.01,
    precision="fp32",
    seeds={"times": 7},
    last_loss=0.5,
)


class Twist(torch.autograd.Function):
    """The identity, whose gradient is not finite."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * INF


class Small(nn.Module):
    """Two linear layers and a loss; `spoil` says what goes wrong, and where."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.middle, self.last = nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)
        self.spoil = None

    def forward(self, x):
        hidden = self.middle(self.first(x))
        if self.spoil == "between":
            hidden = hidden * INF
        if self.spoil == "gradient":
            hidden = Twist.apply(hidden)
        loss = self.last(hidden).square().mean()
        return loss * NAN if self.spoil == "loss" else loss


class Steps:
    """A trainer in miniature: weights, an average, AdamW and a guard, in steps of two images."""

    def __init__(self, *, retries=3, scaler=None):
        self.model = Small()
        self.ema = {"ema-0.9": EMA(self.model, warmed_decay(0.9))}
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.01, fused=True)
        self.guard = Guard(self.model, self.optimizer, self.ema, scaler=scaler, retries=retries)
        self.told = []
        self.guard.tell = self.told.append
        self.images = 0

    def gradient(self, x):
        loss = self.model(x)
        loss.backward()
        return loss

    def step(self, *, spoil=None):
        x = torch.randn(2, 3, generator=torch.Generator().manual_seed(self.images))
        self.model.spoil = spoil
        loss = self.gradient(x).item()
        norm = float(nn.utils.clip_grad_norm_(self.model.parameters(), INF))
        images, self.images = self.images, self.images + 2
        if self.guard.sound(loss, norm):
            self.guard.cleared()
            self.optimizer.step()
            self.optimizer.zero_grad()
            for average in self.ema.values():
                average.update(self.images, 2)
            return
        met = replace(MET, images=images, losses=[loss, 1.0], gradient_norm=norm)
        self.guard.skip(met, lambda: self.gradient(x))

    def state(self):
        """Copies of all that is learned."""
        tensors = {f"model/{n}": t.clone() for n, t in self.model.state_dict().items()}
        tensors |= {f"ema/{n}": t.clone() for n, t in self.ema["ema-0.9"].average.items()}
        for i, state in enumerate(self.optimizer.state.values()):
            tensors |= {f"{i}/{n}": t.clone() for n, t in state.items()}
        return tensors


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


@pytest.fixture
def steps():
    """A few good steps, remembered after the second."""
    steps = Steps()
    steps.guard.remember(0)
    for _ in range(2):
        steps.step()
    steps.guard.remember(steps.images)
    steps.remembered = steps.state()
    for _ in range(2):
        steps.step()
    return steps


# --- one bad step -------------------------------------------------------------------------------


@pytest.mark.parametrize("spoil", ["loss", "between", "gradient"])
def test_nothing_of_a_bad_step_is_applied_and_no_gradient_is_left(spoil, steps):
    before = steps.state()
    steps.step(spoil=spoil)
    assert same(steps.state(), before)
    assert all(p.grad is None for p in steps.model.parameters())
    assert (steps.guard.streak, steps.told[0].streak, steps.told[0].back_to) == (1, 1, None)


def test_a_good_step_ends_the_streak(steps):
    for _ in range(3):
        steps.step(spoil="loss")
        steps.step()
    assert steps.guard.streak == 0
    assert [skipped.streak for skipped in steps.told] == [1, 1, 1]


def test_it_is_told_what_the_step_was_made_of(steps):
    with torch.no_grad():
        steps.model.last.weight[0, 0] = -7.0
    steps.step(spoil="between")
    (skipped,) = steps.told
    assert (skipped.met.images, skipped.met.indices, skipped.met.t) == (8, [4, 5], [0.1, 0.2])
    assert math.isnan(skipped.loss) or math.isinf(skipped.loss)
    assert skipped.largest_weight == ("last.weight", 7.0)
    assert skipped.layer == "the input of last"
    assert skipped.sentence().startswith("The step after 8 images was skipped: its loss is ")


# --- several in a row ---------------------------------------------------------------------------


def test_the_second_in_a_row_goes_back_to_the_restore_point_with_all_that_was_learned(steps):
    assert not same(steps.state(), steps.remembered)
    steps.step(spoil="loss")
    steps.step(spoil="loss")
    assert same(steps.state(), steps.remembered)
    assert [skipped.back_to for skipped in steps.told] == [None, 4]
    assert "what is learned goes back to 4 images" in steps.told[1].sentence()


def test_what_goes_on_from_a_restore_point_is_what_would_have_from_there(steps):
    steps.step(spoil="loss")
    steps.step(spoil="loss")
    images = steps.images
    for _ in range(3):
        steps.step()

    other = Steps()
    other.guard.remember(0)
    for _ in range(2):
        other.step()
    other.images = images
    for _ in range(3):
        other.step()
    assert same(steps.state(), other.state())


def test_before_its_first_step_an_optimiser_goes_back_to_having_no_state():
    steps = Steps()
    steps.guard.remember(0)
    fresh = steps.state()
    steps.step()
    steps.step(spoil="loss")
    steps.step(spoil="loss")
    assert same(steps.state(), fresh)


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_after_so_many_in_a_row_the_run_ends_and_the_layer_is_named(retries):
    steps = Steps(retries=retries)
    steps.guard.remember(0)
    for _ in range(retries):
        steps.step(spoil="between")
    with pytest.raises(TrainingError) as caught:
        steps.step(spoil="between")
    said = str(caught.value)
    assert f"as in {retries + 1} steps in a row" in said
    assert "the input of last is what went first" in said
    assert "lower optimizer.rate (now 0.01 at that step)." in said
    assert len(steps.told) == retries + 1  # the last one is told of, too
    assert steps.guard.streak == 0  # who goes on has as many tries again


def test_a_model_that_breaks_again_each_time_it_is_put_back_ends_the_run():
    steps = Steps(retries=2)
    steps.guard.remember(0)
    fresh = steps.state()

    def broken_again():
        steps.step()
        steps.step(spoil="loss")
        steps.step(spoil="loss")

    broken_again()
    broken_again()
    with pytest.raises(TrainingError, match="though it went back to 0 images 3 times"):
        broken_again()
    assert same(steps.state(), fresh)


def test_a_new_restore_point_is_a_new_start():
    steps = Steps(retries=1)
    for _ in range(4):
        steps.guard.remember(steps.images)
        steps.step(spoil="loss")
        steps.step()
    assert steps.guard.streak == 0


def test_a_poisoned_weight_is_mended_by_going_back(steps):
    with torch.no_grad():
        steps.model.first.weight[0, 0] = NAN
    steps.step()
    assert steps.told[0].layer == "the output of first"
    assert steps.told[0].largest_weight == ("first.weight", INF)
    steps.step()
    assert same(steps.state(), steps.remembered)
    steps.step()
    assert steps.guard.streak == 0


def test_broken_weights_are_not_remembered(steps):
    with torch.no_grad():
        steps.model.last.bias[0] = NAN
    steps.guard.remember(steps.images)
    steps.step()
    steps.step()
    assert same(steps.state(), steps.remembered)


def test_nothing_is_remembered_within_a_streak(steps):
    steps.step(spoil="loss")
    steps.guard.remember(steps.images)
    steps.step(spoil="loss")
    assert steps.told[-1].back_to == 4


def test_who_is_taken_up_within_a_streak_goes_back_to_where_it_was_taken_up():
    steps = Steps()
    steps.guard.load_state_dict({"streak": 1})
    steps.guard.remember(0)
    fresh = steps.state()
    with torch.no_grad():
        steps.model.last.bias[0] = 5.0
    steps.step(spoil="loss")
    assert [skipped.back_to for skipped in steps.told] == [0]
    assert same(steps.state(), fresh)


def test_the_streak_is_part_of_what_is_saved(steps):
    steps.step(spoil="loss")
    other = Steps()
    other.guard.load_state_dict(steps.guard.state_dict())
    assert other.guard.streak == 1
    other.guard.load_state_dict({})
    assert other.guard.streak == 0


def test_an_infinite_gradient_alone_is_left_to_the_loss_scaler_until_its_scale_is_below_one():
    scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    scaler.scale(torch.ones(()))  # which makes the scale
    guard = Steps(scaler=scaler).guard
    assert guard.sound(0.5, INF)
    assert not guard.sound(NAN, INF)
    scaler.update(0.5)
    assert not guard.sound(0.5, INF)
    assert guard.sound(0.5, 1.0)


def _largest_of_parts():
    processes = join(CPU)
    model = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 1)])  # of the last one holds nothing
    with torch.no_grad():
        model[0].weight[0, 0], model[0].weight[3, 0] = 5, -7
    mesh = init_device_mesh("cpu", (processes.world,))
    for layer in model:
        fully_shard(layer, mesh=mesh)
    guard = Guard(model, torch.optim.AdamW(model.parameters()), {}, processes=processes)
    told = []
    guard.tell = told.append
    guard.skip(MET, lambda: None)
    return told[0].largest_weight


def test_the_largest_weight_is_that_of_all_processes():
    assert several(2, _largest_of_parts) == [("0.weight", 7.0)] * 2


# --- which layer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        ("between", "the input of last"),
        ("loss", LOSS),
        ("gradient", "the gradient of first.weight"),
        (None, NOWHERE),
    ],
)
def test_the_first_layer_that_is_not_finite_is_named(spoil, named):
    model = Small()
    model.spoil = spoil
    found = first_bad_layer(model, lambda: model(torch.ones(2, 3)).backward())
    assert found in (named, named.replace("weight", "bias"))


def test_the_layer_that_breaks_is_named_and_not_those_after_it():
    model = Small()
    with torch.no_grad():
        model.first.weight[0, 0] = INF
    assert first_bad_layer(model, lambda: model(torch.ones(2, 3)).backward()) == (
        "the output of first"
    )


def test_gradients_that_were_bad_before_do_not_count_and_no_hook_stays():
    model = Small()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, NAN)
    assert first_bad_layer(model, lambda: model(torch.ones(2, 3)).backward()) == NOWHERE
    assert not any(module._forward_hooks for module in model.modules())
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
