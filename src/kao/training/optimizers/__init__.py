"""Optimisers: how a gradient becomes a step.

adamw            the default
adan             Nesterov momentum from differences of gradients (Xie et al. 2022)
muon             orthogonalised momentum for the matrices inside the network (Jordan et al. 2024)
schedule_free    an average in the place of a cool-down (Defazio et al. 2024)
adamw8bit        AdamW with its moments in eight bits (Dettmers et al. 2022)
"""

from kao.training.optimizers.adamw import AdamW
from kao.training.optimizers.adamw8bit import AdamW8bit
from kao.training.optimizers.adan import Adan
from kao.training.optimizers.method import Average, Method, Named
from kao.training.optimizers.muon import Muon
from kao.training.optimizers.orthogonal import orthogonalised
from kao.training.optimizers.schedule_free import ScheduleFree

OPTIMIZERS = {
    "adamw": AdamW,
    "adan": Adan,
    "muon": Muon,
    "schedule_free": ScheduleFree,
    "adamw8bit": AdamW8bit,
}

__all__ = [
    "OPTIMIZERS",
    "AdamW",
    "AdamW8bit",
    "Adan",
    "Average",
    "Method",
    "Muon",
    "Named",
    "ScheduleFree",
    "orthogonalised",
]
