"""Recipes: TOML files of differences from the defaults, ours by name, yours by path."""

import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kao.config.run import RunConfig
from kao.config.tree import Origin, Table, dump, from_overrides, merge, parse
from kao.errors import ConfigError, near_miss

COMMAND_LINE = Origin("the command line")


def recipe_names() -> list[str]:
    """Names of the recipes that come with kao."""
    folder = resources.files("kao.config").joinpath("recipes")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name[-5:] == ".toml")


def load_recipe(recipe: str) -> Table:
    """The differences that a recipe makes, those of the recipe it extends included.

    Args:
        recipe: The name of one of ours, or the path of a TOML file.

    Raises:
        ConfigError: There is no such recipe, it is not TOML, or it has an unknown key or a value
            of the wrong type.
    """
    return _load(recipe, seen=())


def _load(recipe: str, seen: tuple[str, ...]) -> Table:
    if recipe in seen:
        raise ConfigError(f"the recipe {recipe} extends itself ({' -> '.join([*seen, recipe])}).")
    origin = _read(recipe)
    try:
        own = tomllib.loads(origin.text)
    except ValueError as error:
        raise ConfigError(f"{origin.name} is not TOML: {error}.") from None
    parent = own.pop("extends", None)
    if parent is not None and not isinstance(parent, str):
        raise ConfigError(f"extends = {parent!r} in {origin.name}; expected one recipe's name.")
    if parent and parent.endswith(".toml"):
        # A file means its neighbours, wherever kao is called from.
        parent = os.path.normpath(Path(recipe).parent / parent)
    table = merge(_load(parent, (*seen, recipe)), own) if parent else own
    parse(RunConfig, merge(dump(RunConfig()), table), origin)
    return table


def _read(recipe: str) -> Origin:
    path = Path(recipe)
    if path.suffix == ".toml" or os.path.isfile(path):
        try:
            return Origin(str(path), path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"the recipe {path} cannot be read ({error}).") from None
    names = recipe_names()
    if recipe not in names:
        raise ConfigError(
            f'unknown recipe "{recipe}"{near_miss(recipe, names)}; there are: {", ".join(names)}, '
            f"or give the path of a TOML file."
        )
    file = resources.files("kao.config").joinpath("recipes", f"{recipe}.toml")
    return Origin(f"{recipe}.toml", file.read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Request:
    """What a user asked for: differences from the defaults.

    Attributes:
        table: The recipe's keys with the overrides over them.
    """

    table: Table

    @classmethod
    def of(
        cls, recipe: str | None, overrides: Sequence[str] = (), flags: Table | None = None
    ) -> "Request":
        """Put flags over overrides over a recipe.

        Args:
            recipe: Name or path, or None for the defaults.
            overrides: `key=value` words.
            flags: A table made of command-line flags.

        Raises:
            ConfigError: An unknown recipe, or a word that is no override.  Whether keys and
                values fit is seen when they are put `over` a configuration.
        """
        table = load_recipe(recipe) if recipe else {}
        changes = merge(from_overrides(overrides), flags or {})
        return cls(merge(table, changes))

    def over(self, base: Table) -> RunConfig:
        """The configuration that follows when the request is put over a whole one.

        Raises:
            ConfigError: A key or a value does not fit.
        """
        return parse(RunConfig, merge(base, self.table), COMMAND_LINE)


def load_config(text: str, name: str) -> RunConfig:
    """Read a whole configuration back, as saved in run.toml.

    Raises:
        ConfigError: It is not TOML or has keys this version does not know.
    """
    try:
        table = tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"{name} is not TOML: {error}.") from None
    return parse(RunConfig, table, Origin(name, text))
