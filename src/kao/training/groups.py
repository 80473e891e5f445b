"""Parts of a model that learn at another rate than the rest."""

from collections.abc import Iterable

import torch
from torch import nn


def scale_rate(
    optimizer: torch.optim.Optimizer, parameters: Iterable[nn.Parameter], scale: float
) -> None:
    """Multiply the learning rate of some parameters, whatever the method.

    A group of which some parameters are named is split: the rest stays where it was, and the
    named ones follow at the end, with the same options.  The trainer multiplies the rate by a
    group's "scale"; one that it has already is multiplied.

    Args:
        optimizer: Before its first step; changed in place.
        parameters: Whose rate is another.
        scale: What it is multiplied by.
    """
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        named = [p for p in group["params"] if id(p) in chosen]
        rest = [p for p in group["params"] if id(p) not in chosen]
        scaled = scale * group.get("scale", 1.0)
        if named and rest:
            options = {key: value for key, value in group.items() if key != "params"}
            group["params"] = rest
            optimizer.add_param_group({**options, "params": named, "scale": scaled})
        elif named:
            group["scale"] = scaled
