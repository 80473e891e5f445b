"""Configuration: one tree of frozen dataclasses, TOML in and out, recipes, overrides."""

from kao.config.recipes import Request, load_config, load_recipe, recipe_names
from kao.config.run import RunConfig
from kao.config.sampling import SamplingConfig
from kao.config.tree import Table, dump, leaves

__all__ = [
    "Request",
    "RunConfig",
    "SamplingConfig",
    "Table",
    "dump",
    "leaves",
    "load_config",
    "load_recipe",
    "recipe_names",
]
