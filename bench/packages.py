"""The packages of the peers, imported as they are or with a word on how to get them."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import ModuleType
from typing import Any

_DIFFUSERS = {
    "accelerate": ("Accelerator",),
    "diffusers": ("UNet2DModel", "DDPMScheduler", "DDIMPipeline"),
    "diffusers.training_utils": ("EMAModel",),
}


def load(names: Iterable[str]) -> None:
    """Import what some sides need, so that none is charged with it.

    Raises:
        SystemExit: Something is not installed.
    """
    if all(name.startswith("kao") for name in names):
        return
    for module, attributes in _DIFFUSERS.items():
        for attribute in attributes:
            getattr(needed(module), attribute)
    lucidrains()


def lucidrains() -> ModuleType:
    """The package denoising_diffusion_pytorch.

    It imports torchvision and scipy for things that are not used here (reading image files,
    writing grids, matching noise); where they are missing, empty modules stand in for them while
    it is imported.
    """
    needed("accelerate")  # looks for torchvision, and must not find what stands in for it
    stubs = {
        "torchvision": ("transforms", "utils"),
        "torchvision.transforms": (),
        "torchvision.utils": (),
        "scipy": ("optimize",),
        "scipy.optimize": ("linear_sum_assignment",),
    }
    with _standing_in(stubs):
        return needed("denoising_diffusion_pytorch")


@contextlib.contextmanager
def _standing_in(stubs: Mapping[str, tuple[str, ...]]) -> Iterator[None]:
    """Empty modules with some names, for those that are not installed."""
    missing = []
    for name, attributes in stubs.items():
        try:
            __import__(name)
        except ImportError:
            stub = ModuleType(name)
            vars(stub).update({attribute: None for attribute in attributes})
            sys.modules[name] = stub
            missing.append(name)
    try:
        yield
    finally:
        for name in missing:  # others look for them to know what is installed
            del sys.modules[name]


def needed(name: str) -> Any:
    """A module by its name.

    Raises:
        SystemExit: It is not installed.
    """
    try:
        __import__(name)
    except ImportError as error:
        raise SystemExit(
            f"The peers are not installed ({error}): pip install diffusers accelerate "
            f"denoising-diffusion-pytorch einops ema-pytorch, or install them with --target FOLDER "
            f"--no-deps and set PYTHONPATH=FOLDER."
        ) from error
    return sys.modules[name]
