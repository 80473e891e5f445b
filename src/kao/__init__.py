"""kao (顔, "face"): learn to draw faces from a folder of pictures, and say how well it went.

    import kao

    run = kao.train("my-faces/", run="runs/mine", length="10 minutes")
    pictures = kao.sample(run, n=16, seed=0)          # uint8, (16, 3, 32, 32)

The rooms are packages: `kao.diffusion` (the mathematics), `kao.networks`, `kao.data`,
`kao.training`, `kao.checkpoints`, `kao.config`, `kao.runs`, `kao.reports`.  Nothing heavy is
imported before one of the names below is used.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kao.runs import Run, finetune, import_run, sample, train

__version__ = version("kao")

__all__ = ["Run", "finetune", "import_run", "sample", "train", "__version__"]


def __getattr__(name: str) -> Any:
    if name in ("Run", "finetune", "import_run", "sample", "train"):
        return getattr(import_module("kao.runs"), name)
    raise AttributeError(f"module 'kao' has no attribute {name!r}")
