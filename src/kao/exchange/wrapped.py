"""Finding a network's weights in a file, whatever wraps them.

Training loops save more than a network, and wrappers put words before the names of its tensors:
`module.` (DataParallel), `_orig_mod.` (torch.compile), `state_dict` and `model.` (Lightning),
`ema` and `params_ema` (averages), in any order.  A tensor that every network of a kind has tells
where one begins: what goes before its name is a wrapper, and each wrapper has a set of weights.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from kao.errors import CheckpointError

_DEPTH = 16
"""Of tables in tables; what lies deeper is a table in itself."""

_INSIDE = re.compile(
    r"(?:^|(?<=\.))(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
"""Wrappers that may stand before every name of a part."""

_AVERAGED = re.compile(r"(?:^|[^a-z])(?:ema|averaged?|(?<!exp_)avg|swa|shadow)(?:[^a-z]|$)")
_FILES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_NAMED = 3


class Unwrapped(NamedTuple):
    """A network's weights, and what lies around them.

    Attributes:
        state: By the names of the bare network.
        beside: Tensors of the tables around it, the nearest first: those of a chain.
        averaged: Whether they are averaged over training, as far as names tell.
        notes: Sentences on what was taken off, taken and passed over.
    """

    state: dict[str, Tensor]
    beside: dict[str, Tensor]
    averaged: bool
    notes: list[str]


def flat(content: Any, depth: int = _DEPTH) -> dict[str, Tensor]:
    """All tensors of tables in tables and lists, by the way to them: "ema.model.weight".

    Args:
        content: What a file holds.
        depth: Of tables to look into.
    """
    inside = content.items() if isinstance(content, Mapping) else enumerate(content)
    found: dict[str, Tensor] = {}
    for key, value in inside:
        if isinstance(value, Tensor):
            found[str(key)] = value
        elif isinstance(value, Mapping | list | tuple) and depth:
            found |= {f"{key}.{name}": tensor for name, tensor in flat(value, depth - 1).items()}
    return found


def averaged(name: str) -> bool:
    """Whether the name of a file, a folder or a table tells of averaged weights."""
    return _AVERAGED.search(name.lower()) is not None


def prefixes(tensors: Mapping[str, Tensor], *anchors: str) -> list[str]:
    """Where networks begin: what goes before the names of tensors that all of a kind have.

    Args:
        tensors: From `flat`.
        anchors: Names in the bare network.

    Returns:
        Prefixes, without wrappers of parts, in the order of the file; "" where names are bare.
    """
    names = {_INSIDE.sub("", name): None for name in tensors}
    first = anchors[0]
    found = [name.removesuffix(first) for name in names if name.endswith(first)]
    return [
        prefix
        for prefix in found
        if prefix[-1:] in ("", ".") and all(prefix + anchor in names for anchor in anchors)
    ]


def unwrapped(
    tensors: Mapping[str, Tensor],
    *anchors: str,
    origin: str,
    wanted: str = "auto",
    usual: Sequence[str] = ("",),
    tables: Sequence[str] = (),
) -> Unwrapped:
    """The weights of a network, of the set that is wanted.

    Args:
        tensors: From `flat`, with the anchors under one prefix or several.
        anchors: As in `prefixes`.
        origin: Where they come from, for messages.
        wanted: "auto" for averaged weights where there are some; or the name of a set.
        usual: Prefixes that need no word, since the program itself writes them.
        tables: Names of tensors that are looked for in the tables around the network.

    Raises:
        CheckpointError: There is no set of that name.
    """
    homes = prefixes(tensors, *anchors)
    named = dict(zip(_names(homes), homes, strict=True))
    name = _chosen(named, wanted, origin)
    home, notes = named[name], list[str]()
    bare = {_INSIDE.sub("", key): tensor for key, tensor in tensors.items()}
    deeper = tuple(other for other in homes if other != home and other.startswith(home))
    state = {
        key[len(home) :]: tensor
        for key, tensor in bare.items()
        if key.startswith(home) and not key.startswith(deeper)
    }
    raw = next(key for key in tensors if _INSIDE.sub("", key) == home + anchors[0])
    wrapper = raw.removesuffix(anchors[0]) if raw.endswith(anchors[0]) else raw
    if wrapper not in usual:
        notes.append(
            f'The names of its weights begin with "{wrapper}", a wrapper\'s, which was taken off.'
        )
    if len(named) > 1 and wanted == "auto":
        kind = "averaged weights" if averaged(home) else "weights"
        others = [other for other in named if other != name]
        ways = " or ".join(f"--weights {other}" for other in others)
        notes.append(
            f"It holds several sets, of which the {kind}, {name}, were taken: {ways} "
            f"takes {'the other' if len(others) == 1 else 'another'}."
        )
    beside: dict[str, Tensor] = {}
    around = home
    while around:
        around = around[: around[:-1].rfind(".") + 1]
        beside = {
            table: bare[around + table] for table in tables if around + table in bare
        } | beside
    over = [key for key in bare if home and not key.startswith(tuple(homes))]
    return Unwrapped(state, beside, averaged(home), [*notes, *_over(over, home, tables)])


def neighbours(path: Path) -> list[str]:
    """A note on averaged weights beside a file or a folder of some, where its own are none.

    Args:
        path: A file of weights, or the folder of a network.
    """
    path = path.resolve()
    if averaged(path.stem):
        return []
    try:
        around = list(path.parent.iterdir())
    except OSError:  # a folder that may be entered and not listed
        return []
    beside = sorted(
        other.name
        for other in around
        if other != path
        and averaged(other.stem)
        and ((other / "config.json").is_file() if path.is_dir() else other.suffix in _FILES)
    )
    if not beside:
        return []
    more = f" and {len(beside) - _NAMED} more" if len(beside) > _NAMED else ""
    return [
        f"Averaged weights may lie beside {path.name}, in {', '.join(beside[:_NAMED])}{more}: name "
        f"those to take them."
    ]


def _names(homes: Sequence[str]) -> list[str]:
    """Short names of sets: the beginning of what is left of a prefix without what all share."""
    ways = [re.split(r"\.(?!\d)", home)[:-1] for home in homes]  # "ema_0.999" is one word
    if len(ways) == 1:
        return [(ways[0] or ["model"])[0]]
    shared = 0
    while all(len(way) > shared for way in ways) and len({way[shared] for way in ways}) == 1:
        shared += 1
    left = [way[shared:] for way in ways]
    names = []
    for way in left:
        depth = next(
            (n for n in range(1, len(way)) if sum(o[:n] == way[:n] for o in left) == 1), len(way)
        )
        names.append(".".join(way[:depth]) or "model")
    return names


def _chosen(named: Mapping[str, str], wanted: str, origin: str) -> str:
    """The name of the set that is wanted.

    Raises:
        CheckpointError: There is none of that name.
    """
    if wanted in named:
        return wanted
    fits = [name for name in named if wanted == "auto" or f"{name}.".startswith(f"{wanted}.")]
    if not fits:
        raise CheckpointError(
            f'{origin} has no weights "{wanted}": it holds {" and ".join(named)}.'
        )
    # Averages are often kept beside the weights that they are of.
    best = [n for n in fits if averaged(named[n]) and "online" not in named[n]]
    return (best or fits)[0]


def _over(names: Sequence[str], home: str, known: Sequence[str]) -> list[str]:
    """A note on tensors that were passed over, counted by the table that they lie in."""
    strange = [name.split(".") for name in names if name.rsplit(".", 1)[-1] not in known]
    if not strange:
        return []
    way, counted = home.split("."), Counter[str]()
    for parts in strange:
        depth = next(n for n, part in enumerate(parts) if part != way[n])
        counted[".".join(parts[: depth + 1] if len(parts) > depth + 1 else parts[:depth])] += 1
    tables = counted.most_common()
    each = ", ".join(f"{count} of {table or 'no table'}" for table, count in tables[:_NAMED])
    more = f" and {len(tables) - _NAMED} more" if len(tables) > _NAMED else ""
    are = "tensor was" if len(strange) == 1 else "tensors were"
    return [f"{len(strange)} {are} passed over, which lie beside the network: {each}{more}."]
