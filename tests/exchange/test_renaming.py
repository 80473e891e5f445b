"""Rules between two programs' names: there and back, and nothing lost on the way."""

import pytest
import torch

from kao.errors import CheckpointError
from kao.exchange.changes import Extended, Permuted, Pointwise, Reshaped, Scaled
from kao.exchange.renaming import (
    Constant,
    Joined,
    Repeated,
    Same,
    joined_layer,
    layer,
    to_ours,
    to_theirs,
)


def numbers(*shape):
    return torch.arange(float(torch.Size(shape).numel())).reshape(shape)


@pytest.mark.parametrize(
    ("change", "theirs", "ours"),
    [
        (Pointwise(2, 0), numbers(4, 3), numbers(4, 3, 1, 1)),
        (Pointwise(2, 1), numbers(4, 3, 1), numbers(4, 3, 1, 1)),
        (Pointwise(0, 2), numbers(4, 3, 1, 1), numbers(4, 3)),
        (Permuted((2, 0, 1)), numbers(3), torch.tensor([2.0, 0.0, 1.0])),
        (Permuted((1, 0), dim=1), numbers(1, 2), torch.tensor([[1.0, 0.0]])),
        (Scaled(0.5), numbers(3), numbers(3) / 2),
        (Extended(2), numbers(2, 2), torch.cat([numbers(2, 2), torch.zeros(2, 2)])),
        (Reshaped((3, 2), (6,)), numbers(6), numbers(3, 2)),
    ],
    ids=str,
)
def test_each_change_is_undone_by_its_other_half(change, theirs, ours):
    assert torch.equal(change.to_ours(theirs), ours)
    assert torch.equal(change.to_theirs(ours), theirs)


def test_changes_follow_each_other_and_are_undone_in_reverse():
    rule = Same("a", "b", (Permuted((1, 2, 0)), Scaled(2.0), Pointwise(2, 0)))
    theirs = {"b": numbers(3, 2)}
    ours = to_ours([rule], theirs, origin="x")
    assert torch.equal(ours["a"], 2 * numbers(3, 2)[[1, 2, 0]][:, :, None, None])
    assert torch.equal(to_theirs([rule], ours)["b"], theirs["b"])


def test_layers_that_lie_apart_there_lie_in_one_here():
    rules = joined_layer("qkv", ["q", "k", "v"], weight=(Pointwise(2, 0),))
    theirs = {f"{n}.weight": numbers(2, 2) + i for i, n in enumerate("qkv")}
    theirs |= {f"{n}.bias": numbers(2) + i for i, n in enumerate("qkv")}
    ours = to_ours(rules, theirs, origin="x")
    assert ours["qkv.weight"].shape == (6, 2, 1, 1)
    assert torch.equal(ours["qkv.bias"], torch.tensor([0.0, 1, 1, 2, 2, 3]))
    back = to_theirs(rules, ours)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)
    assert len({tensor.untyped_storage().data_ptr() for tensor in back.values()}) > 1


def test_tensors_may_be_joined_along_any_dimension():
    rule = Joined("a", ("b", "c"), dim=1)
    ours = to_ours([rule], {"b": numbers(2, 1), "c": numbers(2, 1)}, origin="x")
    assert ours["a"].shape == (2, 2)
    assert to_theirs([rule], ours)["c"].tolist() == [[0.0], [1.0]]


def test_copies_are_one_tensor_as_long_as_they_are_equal():
    rule = Repeated("a", ("b", "c"))
    assert torch.equal(
        to_ours([rule], {"b": numbers(2), "c": numbers(2)}, origin="x")["a"], numbers(2)
    )
    back = to_theirs([rule], {"a": numbers(2)})
    assert torch.equal(back["b"], back["c"])
    assert back["b"].data_ptr() != back["c"].data_ptr()
    with pytest.raises(CheckpointError, match="c differs from b"):
        to_ours([rule], {"b": numbers(2), "c": numbers(2) + 1}, origin="x")


def test_what_they_do_without_is_made_up_and_left_out_while_it_says_nothing():
    rule = Constant("bias", (2,))
    assert torch.equal(to_ours([rule], {}, origin="x")["bias"], torch.zeros(2))
    assert to_theirs([rule], {"bias": torch.zeros(2)}) == {}
    with pytest.raises(CheckpointError, match="bias is not 0 everywhere"):
        to_theirs([rule], {"bias": torch.ones(2)})


def test_names_that_do_not_go_round_are_named_the_first_three():
    rules = [*layer("a", "b"), *layer("c", "d", bias=None)]
    theirs = {"b.weight": numbers(1), "x": numbers(1), "y": numbers(1)}
    with pytest.raises(CheckpointError) as told:
        to_ours(rules, theirs, origin="the file")
    message = str(told.value)
    assert message.startswith("the file ")
    assert "b.bias is missing; d.weight is missing; x is left over and 1 more" in message
    with pytest.raises(CheckpointError, match=r"c\.weight is missing; e is left over"):
        to_theirs(rules, {"a.weight": numbers(1), "a.bias": numbers(1), "e": numbers(1)})
