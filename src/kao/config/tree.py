"""Between TOML tables and trees of frozen dataclasses, strictly.

A field whose value is one of several components (a schedule, a target, ...) names its registry
in the field's metadata, and `kind` in the table picks the entry:

    [schedule]                 schedule = "flow"         a component without options may be
    kind = "cosine"                                      written as its name alone
    steps = 50

A registry entry is a dataclass (its fields are the options), a function (no options) or None.
"""

import dataclasses
import json
import math
import re
import sys
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from kao.errors import ConfigError, near_miss

Table = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True)
class Origin:
    """Where a table came from, for messages.

    Attributes:
        name: "my.toml", "the command line".
        text: Its text, to find a key's line in; empty if it has no lines.
    """

    name: str
    text: str = ""

    def at(self, key: str) -> str:
        """The origin with the line of `key`, "my.toml:7", where the key is on one line only."""
        pattern = re.compile(rf"^\s*{re.escape(key)}\s*=")
        lines = [n for n, line in enumerate(self.text.splitlines(), 1) if pattern.match(line)]
        return f"{self.name}:{lines[0]}" if len(lines) == 1 else self.name


def merge(base: Table, change: Table) -> Table:
    """`base` with the keys of `change` put over it, table by table.

    A table of another `kind` replaces the old one: options of a cosine schedule mean nothing to
    a flow.  Where the old one names no kind, its options wait for the one that follows.
    """
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            replaced = "kind" in value and value["kind"] != old.get("kind", value["kind"])
            merged[key] = value if replaced else merge(old, value)
        elif isinstance(value, dict) and isinstance(old, str) and "kind" not in value:
            merged[key] = {"kind": old, **value}
        elif isinstance(value, str) and isinstance(old, dict) and "kind" in old:
            merged[key] = merge({key: old}, {key: {"kind": value}})[key]
        else:
            merged[key] = value
    return merged


def parse(cls: type[T], table: Table, origin: Origin, path: str = "") -> T:
    """Build a dataclass, and those in its fields, from a table.

    Args:
        cls: A dataclass whose fields all have defaults.
        table: Keys that differ from the defaults.
        origin: For messages.
        path: Dotted path of `table` in the whole configuration.

    Raises:
        ConfigError: A key that does not exist (the near miss is named), a value of the wrong
            type, or one that its dataclass refuses; the message names the key by its whole path.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    known = {field.name: field for field in fields(cls)}  # type: ignore[arg-type]
    for key in table:
        if key not in known:
            where = f"[{path}]" if path else "the top level"
            raise ConfigError(
                f'unknown key "{key}" in {where} of {origin.at(key)}{near_miss(key, known)}; '
                f"{where} has: {', '.join(known) or 'no keys'}."
            )
    values: dict[str, Any] = {}
    for key, value in table.items():
        full = f"{path}.{key}" if path else key
        if "registry" in known[key].metadata:
            values[key] = _component(known[key].metadata["registry"], value, origin, full)
        elif is_dataclass(hints[key]):
            if not isinstance(value, dict):
                raise ConfigError(
                    f"{full} = {value!r} in {origin.at(key)}; expected a table [{full}]."
                )
            values[key] = parse(typing.cast(type, hints[key]), value, origin, full)
        else:
            values[key] = _leaf(hints[key], value, origin.at(key), full)
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(_placed(str(error), path, origin)) from None


def _placed(message: str, path: str, origin: Origin) -> str:
    """What a component says of its options, with their place in the whole configuration.

    It knows the name of its own table only: "weight.gamma", which is "loss.weight.gamma" here.
    """
    if not path:
        return message
    name = path.rpartition(".")[2]
    placed = re.sub(rf"(?<![\w.]){name}\.(?=\w)", f"{path}.", message)
    return placed if f"{path}." in placed else f"[{path}] of {origin.name}: {message}"


def _component(registry: Mapping[str, Any], value: Any, origin: Origin, path: str) -> Any:
    table = {"kind": value} if isinstance(value, str) else value
    if not isinstance(table, dict) or not isinstance(table.get("kind"), str):
        raise ConfigError(
            f"{path} = {value!r} in {origin.name}; expected a name or a table with a kind: "
            f"{', '.join(registry)}."
        )
    kind = table["kind"]
    if kind not in registry:
        raise ConfigError(
            f'unknown {path} "{kind}" in {origin.name}{near_miss(kind, registry)}; there are: '
            f"{', '.join(registry)}."
        )
    entry = registry[kind]
    options = {key: option for key, option in table.items() if key != "kind"}
    if isinstance(entry, type):
        return parse(entry, options, origin, path)
    if options:
        raise ConfigError(
            f'{path} "{kind}" takes no options, and {origin.name} gives it '
            f"{', '.join(options)}: remove them."
        )
    return entry


def _leaf(hint: Any, value: Any, origin: str, path: str) -> Any:
    # Any text is one, while pydantic refuses those that names have which are not UTF-8.
    if hint is str and isinstance(value, str):
        return value
    texts = isinstance(value, list | tuple) and all(isinstance(text, str) for text in value)
    if hint == tuple[str, ...] and texts:
        return tuple(value)
    # Through JSON, since pydantic's strict mode takes a list for a tuple there and only there.
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True))
    expected = _words(hint)
    try:
        read = adapter.validate_json(json.dumps(value, default=str))
        if not _too_large(read):
            return _without_signed_zeros(read)
        expected += f" of at most {sys.maxsize:,}"
    except ValidationError:
        pass
    raise ConfigError(f"{path} = {value!r} in {origin}; expected {expected}.")


def _too_large(value: Any) -> bool:
    if isinstance(value, tuple):
        return any(map(_too_large, value))
    # Whole numbers have 64 bits in TOML and in tensors.
    return isinstance(value, int) and abs(value) > sys.maxsize


def _without_signed_zeros(value: Any) -> Any:
    """-0.0 is 0.0, or two configurations would be equal and be written differently."""
    if isinstance(value, tuple):
        return tuple(map(_without_signed_zeros, value))
    return value + 0.0 if isinstance(value, float) else value


def _words(hint: Any) -> str:
    """A type as a person would say it."""
    plain = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    if hint in plain:
        return plain[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return "one of " + ", ".join(json.dumps(a) for a in arguments)
    if origin is tuple:
        count = "" if arguments[-1] is Ellipsis else f" of {len(arguments)}"
        return f"a list{count}, each {_words(arguments[0])}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_words(a) for a in arguments)
    return str(hint)


def component(registry: Mapping[str, Any], default: Any) -> Any:
    """A field that holds one entry of a registry; see above."""
    return dataclasses.field(default_factory=lambda: default, metadata={"registry": registry})


def dump(config: Any) -> Table:
    """The whole tree as a table, defaults included; `parse` of it gives an equal tree."""
    table: Table = {}
    for field in fields(config):
        value = getattr(config, field.name)
        if "registry" in field.metadata:
            table[field.name] = _dump_component(field.metadata["registry"], value)
        elif is_dataclass(value):
            table[field.name] = dump(value)
        else:
            table[field.name] = list(value) if isinstance(value, tuple) else value
    return table


def _dump_component(registry: Mapping[str, Any], value: Any) -> Table:
    for kind, entry in registry.items():
        if entry is value:
            return {"kind": kind}
        if isinstance(entry, type) and type(value) is entry:
            return {"kind": kind, **dump(value)}
    raise ConfigError(
        f"{value!r} is not in the registry ({', '.join(registry)}), so it has no name to be saved "
        f"under: add it there."
    )


def finite(table: Table) -> Table:
    """A table as JSON can say it, which has no infinity: that is the text "inf"."""
    return {
        key: finite(value)
        if isinstance(value, dict)
        else [_finite(one) for one in value]
        if isinstance(value, list)
        else _finite(value)
        for key, value in table.items()
    }


def _finite(value: Any) -> Any:
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def leaves(table: Table, path: str = "") -> dict[str, Any]:
    """A table as dotted paths and values."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        full = f"{path}.{key}" if path else key
        flat |= leaves(value, full) if isinstance(value, dict) else {full: value}
    return flat


def _at(table: Table, keys: Sequence[str]) -> Any:
    """What stands at a path of keys; None if nothing does."""
    value: Any = table
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def from_overrides(overrides: Sequence[str]) -> Table:
    """A table from `key=value` words, whose values are TOML, or text where that fails.

    Raises:
        ConfigError: A word has no "=", or no key before it.
    """
    table: Table = {}
    for word in overrides:
        path, equals, text = word.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(
                f'"{word}" is not an override: expected key=value, such as network.width=64.'
            )
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except ValueError:  # of a number with thousands of digits, too
            value = text
        branch: Table = {keys[-1]: value}
        if isinstance(value, str) and isinstance(_at(table, keys), dict):
            branch = {keys[-1]: {"kind": value}}  # a name after options: they belong together
        for key in reversed(keys[:-1]):
            branch = {key: branch}
        table = merge(table, branch)
    return table
