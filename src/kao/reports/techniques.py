"""How a run was trained, technique by technique, as its configuration and its starts tell."""

import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from kao.reports.record import Event, mapping

Row = tuple[str, str]
"""A technique and how it was used."""

_Table = Mapping[str, Any]


def techniques(
    configuration: str, starts: Sequence[Event], *, micro_batch: int | None = None
) -> list[Row]:
    """What a run used, and in one last row what it did without.

    What changed when the run was taken up is told in order: "bf16, then fp32".  A page must come of
    every run, so what is missing, or was written by another version, is passed over.

    Args:
        configuration: The text of run.toml.
        starts: The "start" events, in order.
        micro_batch: Pictures at once that the run came to, where memory held no more.

    Returns:
        Rows for a table; none where the configuration cannot be read.
    """
    try:
        config = tomllib.loads(configuration)
    except ValueError:
        return []
    training = mapping(config, "training")
    if not training:
        return []
    if micro_batch is not None:
        config = {**config, "training": {**training, "micro_batch": micro_batch}}
    told = {
        name: _in_turn(tell(config, start) for start in starts or [{}])
        for name, tell in _ROWS.items()
    }
    rows = [(name, text) for name, text in told.items() if text]
    without = [name.lower() for name in _OPTIONAL if not told[name]]
    return [*rows, *([("Not used", ", ".join(without))] if without else [])]


def _batch(config: _Table, start: Event) -> str:
    training = mapping(config, "training")
    return _listed(
        _worded(training.get("batch"), "{:,} pictures a step"),
        _worded(training.get("micro_batch"), "at most {:,} at once"),
    )


def _processes(config: _Table, start: Event) -> str:
    world = start.get("processes")
    if not isinstance(world, int):
        return ""
    how = _text(mapping(config, "training").get("parallel")) if world > 1 else ""
    return _listed(str(world), how)


def _precision(config: _Table, start: Event) -> str:
    training = mapping(config, "training")
    on_gpu = bool(mapping(start, "machine").get("gpu"))
    return _listed(
        _text(start.get("precision", training.get("precision"))),
        "TF32 for what stays in float32" if on_gpu and training.get("tf32") else "",
    )


def _optimizer(config: _Table, start: Event) -> str:
    table = mapping(config, "optimizer")
    return _listed(
        _named(table.get("method")),
        _worded(table.get("rate"), "rate {:g}"),
        _worded(table.get("weight_decay"), "weight decay {:g}"),
        _worded(table.get("clip_norm"), "gradients clipped at {:g}"),
    )


def _schedule(config: _Table, start: Event) -> str:
    return _named(mapping(config, "optimizer").get("schedule"))


def _averages(config: _Table, start: Event) -> str:
    table = mapping(config, "ema")
    widths = table.get("widths")
    return _listed(
        _worded(table.get("decay"), "decay {:g}"),
        f"power profiles of width {_value(widths)}" if widths else "",
        _worded(table.get("snapshots"), "a snapshot every {:,} pictures"),
        "in the CPU's memory" if table.get("offload") is True else "",
    )


def _checkpointing(config: _Table, start: Event) -> str:
    mode = _text(mapping(config, "training").get("gradient_checkpointing"))
    return "" if mode == "none" else mode


def _compiled(config: _Table, start: Event) -> str:
    return "torch.compile" if mapping(config, "training").get("compile") is True else ""


def _layout(config: _Table, start: Event) -> str:
    return "innermost" if mapping(config, "training").get("channels_last") is True else ""


def _curriculum(config: _Table, start: Event) -> str:
    named = _named(mapping(config, "training").get("curriculum"))
    return "" if named == "none" else named


def _augmentation(config: _Table, start: Event) -> str:
    table = mapping(mapping(config, "data"), "augment")
    return _listed(*(_option(name, value) for name, value in table.items() if value))


def _pictures(config: _Table, start: Event) -> str:
    where = {"disk": "on the disk", "memory": "in memory", "device": "on the device"}
    return where.get(_text(start.get("keep", mapping(config, "data").get("keep"))), "")


def _held_out(config: _Table, start: Event) -> str:
    return _worded(mapping(config, "data").get("held_out"), "{:,} pictures")


_ROWS: Mapping[str, Callable[[_Table, Event], str]] = {
    "Length": lambda config, start: _text(config.get("length")),
    "Branched from": lambda config, start: _text(start.get("branched_from")),
    "Fine-tuned from": lambda config, start: _text(start.get("base")),
    "Batch": _batch,
    "Processes": _processes,
    "Precision": _precision,
    "Optimiser": _optimizer,
    "Learning rate": _schedule,
    "Averages": _averages,
    "Curriculum": _curriculum,
    "Gradient checkpointing": _checkpointing,
    "Compiled kernels": _compiled,
    "Channels last": _layout,
    "Augmentation": _augmentation,
    "Pictures kept": _pictures,
    "Held out": _held_out,
}

_OPTIONAL = (
    "Curriculum",
    "Gradient checkpointing",
    "Compiled kernels",
    "Channels last",
    "Augmentation",
)


def _in_turn(told: Iterable[str]) -> str:
    """What was so first, and what then."""
    return ", then ".join(text for text, _ in groupby(text for text in told if text))


def _listed(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


def _worded(value: Any, words: str) -> str:
    """A number above 0 in its sentence; "" for what is none, such as "auto"."""
    return words.format(value) if _is_number(value) and value > 0 else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _named(component: Any) -> str:
    """A component of the configuration: "trapezoid (warmup 3,200, cooldown 0.4)"."""
    if not isinstance(component, dict):
        return _text(component)
    options = [_option(name, value) for name, value in component.items() if name != "kind"]
    kind = _text(component.get("kind"))
    return f"{kind} ({', '.join(options)})" if options else kind


def _option(name: str, value: Any) -> str:
    spoken = name.replace("_", " ")
    return spoken if value is True else f"{spoken} {_value(value)}"


def _value(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_value(one) for one in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:,}" if _is_number(value) else str(value)
