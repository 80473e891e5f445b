"""The techniques that make a step faster or smaller, in the order in which they are tried."""

from dataclasses import dataclass
from typing import Literal

import torch

from kao.config import Request, RunConfig, Table, dump
from kao.errors import ConfigError
from kao.machine import best_precision, check_precision
from kao.training.optimizers import AdamW

Effect = Literal["none", "rounding", "other"]


@dataclass(frozen=True)
class Rung:
    """One technique.

    Attributes:
        name: In a table.
        changes: What it sets, over the configuration it is tried on.
        effect: What it does to the numbers: "none", beyond the order of sums; "rounding", they
            are less exact; "other", the model learns in another way, so that speed and loss of a
            few steps do not recommend it.
        barred: Why it is not tried here; empty if it is.
    """

    name: str
    changes: Table
    effect: Effect
    barred: str = ""


PLAIN: Table = {
    "data": {"keep": "disk"},
    "training": {
        "precision": "fp32",
        "micro_batch": "auto",
        "gradient_checkpointing": "none",
        "compile": False,
        "channels_last": False,
        "tf32": False,
        "curriculum": "none",
    },
}
"""The loop without any technique.  The optimiser is the configuration's own; AdamW is always fused,
which costs nothing."""


def plain(config: RunConfig) -> RunConfig:
    """The configuration with every technique off, and a length that is never reached."""
    return changed(changed(config, PLAIN), {"length": "1000000k images"})


def changed(config: RunConfig, changes: Table) -> RunConfig:
    """The configuration with some keys changed.

    Raises:
        ConfigError: They do not fit.
    """
    return Request(changes).over(dump(config))


def rungs(config: RunConfig, device: torch.device, *, everything: bool) -> list[Rung]:
    """The techniques for a device, each with a reason if it is not to be tried.

    Precision comes first, since the others gain more or less with it; then what changes no number;
    then what trades time for memory; then what changes what is learned, which is never taken; last
    what takes minutes to start, and would for every rung above it.

    Args:
        config: Its batch is halved.
        device: Where to train.
        everything: Also what is known to lose there.
    """
    cuda = device.type == "cuda"
    only_cuda = "" if cuda else f"CUDA only, and this is {device.type}"

    def known(loss: str) -> str:
        """A reason not to try, unless all is to be tried."""
        return "" if cuda or everything else f"{loss}; --all tries it"

    emulated = ""
    if best_precision(device) != "bf16" and not everything:
        emulated = "this hardware emulates bf16, slowly; --all tries it"
    adamw = isinstance(config.optimizer.method, AdamW)
    another = "" if adamw else "the optimiser is another than adamw"
    half = config.training.batch // 2
    return [
        Rung("tf32", _training(tf32=True), "rounding", only_cuda),
        Rung("bf16", _training(precision="bf16"), "rounding", emulated),
        Rung("fp16", _training(precision="fp16"), "rounding", _no_fp16(device)),
        Rung(
            "channels_last",
            _training(channels_last=True),
            "none",
            known("normalisation is slow in that layout on a CPU"),
        ),
        Rung("pictures in memory", {"data": {"keep": "memory"}}, "none"),
        Rung("pictures on the device", {"data": {"keep": "device"}}, "none", only_cuda),
        Rung("recompute blocks", _training(gradient_checkpointing="blocks"), "none"),
        Rung("recompute all", _training(gradient_checkpointing="all"), "none"),
        Rung(
            f"{half} at once",
            _training(micro_batch=half),
            "none",
            "" if half else "a batch of 1 has no halves",
        ),
        Rung("adamw8bit", {"optimizer": {"method": "adamw8bit"}}, "other", only_cuda or another),
        Rung("patches", _training(curriculum="patches"), "other"),
        Rung("progressive", _training(curriculum="progressive"), "other"),
        Rung(
            "compile",
            _training(compile=True),
            "rounding",
            known("takes minutes to start on a CPU"),
        ),
    ]


def settled(config: RunConfig, device: torch.device) -> Table:
    """What the ladder has decided on a device, as it is set in a recipe.

    What it has no say in there stays open: TF32 where there is no CUDA, and where the pictures
    lie unless that was found to matter.

    Args:
        config: The highest rung.
        device: Where it was climbed.
    """
    training = dump(config)["training"]
    keys = [key for key in PLAIN["training"] if key != "curriculum"]
    if device.type != "cuda":
        keys.remove("tf32")
    table: Table = {"training": {key: training[key] for key in keys}}
    if config.data.keep != PLAIN["data"]["keep"]:
        table["data"] = {"keep": config.data.keep}
    return table


def _training(**changes: object) -> Table:
    return {"training": changes}


def _no_fp16(device: torch.device) -> str:
    try:
        check_precision("fp16", device)
    except ConfigError as error:
        return str(error)
    return ""
