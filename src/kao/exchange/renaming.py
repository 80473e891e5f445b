"""Between the names that two programs give the same weights, in both directions.

A list of rules describes a network once; `to_ours` reads another program's weights with it, and
`to_theirs` writes ours for that program.  Both are strict: a tensor that no rule names, or that a
rule names and nobody has, is refused, so that no weight is lost or left as it was drawn.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from kao.errors import CheckpointError
from kao.exchange.changes import Change

_NAMED = 3


class Rule(Protocol):
    """Some tensors of ours, and the tensors of theirs that hold the same numbers."""

    def our_names(self) -> Sequence[str]:
        """Names that `to_ours` fills."""

    def their_names(self) -> Sequence[str]:
        """Names that `to_theirs` fills."""

    def to_ours(self, theirs: Sequence[Tensor]) -> Sequence[Tensor]:
        """Tensors in the order of `our_names`, from those of `their_names`.

        Raises:
            CheckpointError: They cannot be held by ours.
        """

    def to_theirs(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        """Tensors in the order of `their_names`, from those of `our_names`.

        Raises:
            CheckpointError: They cannot be held by theirs.
        """


@dataclass(frozen=True)
class Same:
    """One tensor here is one tensor there.

    Attributes:
        ours, theirs: The names.
        changes: From theirs to ours, in this order.
    """

    ours: str
    theirs: str
    changes: tuple[Change, ...] = ()

    def our_names(self) -> Sequence[str]:
        """See `Rule`."""
        return (self.ours,)

    def their_names(self) -> Sequence[str]:
        """See `Rule`."""
        return (self.theirs,)

    def to_ours(self, theirs: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        return (_forth(theirs[0], self.changes),)

    def to_theirs(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        return (_back(ours[0], self.changes),)


@dataclass(frozen=True)
class Joined:
    """Several tensors there lie in one here: queries, keys and values in one layer.

    Attributes:
        ours: The name of the one.
        theirs: The names of its equal shares, in order.
        dim: Along which they are joined.
        changes: From the joined one to ours, in this order.
    """

    ours: str
    theirs: tuple[str, ...]
    dim: int = 0
    changes: tuple[Change, ...] = ()

    def our_names(self) -> Sequence[str]:
        """See `Rule`."""
        return (self.ours,)

    def their_names(self) -> Sequence[str]:
        """See `Rule`."""
        return self.theirs

    def to_ours(self, theirs: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        return (_forth(torch.cat(list(theirs), self.dim), self.changes),)

    def to_theirs(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        return _back(ours[0], self.changes).chunk(len(self.theirs), self.dim)


@dataclass(frozen=True)
class Repeated:
    """One tensor here is several equal ones there.

    Attributes:
        ours: The name of the one.
        theirs: The names of its copies.
        changes: From theirs to ours, in this order.
    """

    ours: str
    theirs: tuple[str, ...]
    changes: tuple[Change, ...] = ()

    def our_names(self) -> Sequence[str]:
        """See `Rule`."""
        return (self.ours,)

    def their_names(self) -> Sequence[str]:
        """See `Rule`."""
        return self.theirs

    def to_ours(self, theirs: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`.

        Raises:
            CheckpointError: They are not equal.
        """
        for name, tensor in zip(self.theirs, theirs, strict=True):
            if not torch.equal(tensor, theirs[0]):
                raise CheckpointError(
                    f"{name} differs from {self.theirs[0]}, and the network here has one weight "
                    f"for both: only models in which they are equal can be read."
                )
        return (_forth(theirs[0], self.changes),)

    def to_theirs(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        tensor = _back(ours[0], self.changes)
        return [tensor.clone() for _ in self.theirs]


@dataclass(frozen=True)
class Constant:
    """A tensor here that theirs does without, since it would hold one value: a bias of zeros.

    Attributes:
        ours: The name.
        shape: Its shape.
        value: What it is filled with.
    """

    ours: str
    shape: tuple[int, ...]
    value: float = 0.0

    def our_names(self) -> Sequence[str]:
        """See `Rule`."""
        return (self.ours,)

    def their_names(self) -> Sequence[str]:
        """See `Rule`."""
        return ()

    def to_ours(self, theirs: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`."""
        return (torch.full(self.shape, self.value),)

    def to_theirs(self, ours: Sequence[Tensor]) -> Sequence[Tensor]:
        """See `Rule`.

        Raises:
            CheckpointError: It holds something else by now.
        """
        if not bool((ours[0] == self.value).all()):
            raise CheckpointError(
                f"{self.ours} is not {self.value:g} everywhere, and the other program's network "
                f"has no place for it: the model cannot be written in that form."
            )
        return ()


def layer(
    ours: str,
    theirs: str,
    weight: tuple[Change, ...] = (),
    bias: tuple[Change, ...] | None = (),
) -> list[Same]:
    """The rules of a layer: its weight, and its bias where it has one.

    Args:
        ours: Its name here.
        theirs: Its name there.
        weight: Changes of its weight.
        bias: Changes of its bias; None: it has none.
    """
    rules = [Same(f"{ours}.weight", f"{theirs}.weight", weight)]
    return rules if bias is None else [*rules, Same(f"{ours}.bias", f"{theirs}.bias", bias)]


def joined_layer(ours: str, theirs: Sequence[str], weight: tuple[Change, ...] = ()) -> list[Joined]:
    """The rules of a layer that is several layers there: their outputs lie beside each other.

    Args:
        ours: Its name here.
        theirs: Their names, in the order of its outputs.
        weight: Changes of its weight, once joined.
    """
    return [
        Joined(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), changes=weight),
        Joined(f"{ours}.bias", tuple(f"{name}.bias" for name in theirs)),
    ]


def to_ours(
    rules: Iterable[Rule], theirs: Mapping[str, Tensor], *, origin: str
) -> dict[str, Tensor]:
    """Weights under our names.

    Args:
        rules: All that our network holds, each tensor once.
        theirs: Another program's weights by its names.
        origin: Where they come from, for messages.

    Raises:
        CheckpointError: A name is missing or left over (the first three are named), or a rule
            cannot hold what is there.
    """
    renamed: dict[str, Tensor] = {}
    names, missing = set(theirs), list[str]()
    for rule in rules:
        wanted = rule.their_names()
        names.difference_update(wanted)
        if lost := [name for name in wanted if name not in theirs]:
            missing += lost
            continue
        tensors = rule.to_ours([theirs[name] for name in wanted])
        renamed |= zip(rule.our_names(), tensors, strict=True)
    _refuse(origin, missing, names)
    return renamed


def to_theirs(
    rules: Iterable[Rule], ours: Mapping[str, Tensor], *, origin: str = "The network"
) -> dict[str, Tensor]:
    """Weights under the names of another program.

    Args:
        rules: All that our network holds, each tensor once.
        ours: Our weights by our names.
        origin: Where they come from, for messages.

    Raises:
        CheckpointError: As `to_ours`.
    """
    renamed: dict[str, Tensor] = {}
    names, missing = set(ours), list[str]()
    for rule in rules:
        wanted = rule.our_names()
        names.difference_update(wanted)
        if lost := [name for name in wanted if name not in ours]:
            missing += lost
            continue
        tensors = rule.to_theirs([ours[name] for name in wanted])
        # Shares of one tensor would be saved as one storage, which safetensors refuses.
        renamed |= {n: t.contiguous() for n, t in zip(rule.their_names(), tensors, strict=True)}
    _refuse(origin, missing, names)
    return renamed


def _forth(tensor: Tensor, changes: Iterable[Change]) -> Tensor:
    for change in changes:
        tensor = change.to_ours(tensor)
    return tensor


def _back(tensor: Tensor, changes: Sequence[Change]) -> Tensor:
    for change in reversed(changes):
        tensor = change.to_theirs(tensor)
    return tensor


def _refuse(origin: str, missing: Sequence[str], left_over: Iterable[str]) -> None:
    """Raise a CheckpointError where names do not go round."""
    problems = [*_said(missing, "is missing"), *_said(sorted(left_over), "is left over")]
    if problems:
        more = f" and {len(problems) - _NAMED} more" if len(problems) > _NAMED else ""
        raise CheckpointError(
            f"{origin} does not hold the weights that its configuration tells of: "
            f"{'; '.join(problems[:_NAMED])}{more}. It is of another version or another network."
        )


def _said(names: Iterable[str], what: str) -> Iterator[str]:
    return (f"{name} {what}" for name in names)
