"""A bare network as ONNX, with all that a program without torch needs to draw with it."""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kao.errors import ConfigError, MissingExtraError, OutputError
from kao.exchange.markdown import plain
from kao.exchange.steps import classes_of, limited, told
from kao.exchange.trained import Trained
from kao.files import encoded, new_folder, readable
from kao.networks import Conditions

FILE, SIDECAR, README = "model.onnx", "sampling.json", "README.md"

OPSET = 18
"""Version of the operators: the first that knows GroupNormalization and what resizing needs."""

AGREES = 1e-4
"""Largest difference from torch, as a share of the largest output or of 1, whichever is more."""

_LARGEST = 1_900_000_000
"""Bytes that one ONNX file may hold; more weights lie in a file beside it."""

_PROBES = (1, 3)
"""Batches on which the file is held against torch; neither is the one that it was traced with."""


class Asked(nn.Module):
    """A network as a function of tensors alone, which is what ONNX can hold.

    Args:
        network: The bare network.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, label: Tensor, of_class: Tensor | None = None) -> Tensor:
        """What the network says of (B, C, H, W) at labels (B,), of classes (B,) or of none."""
        condition = None if of_class is None else Conditions(label=of_class)
        return self.network(x, label, condition)


def write_onnx(trained: Trained, path: Path) -> tuple[str, ...]:
    """Write a folder with the network, how to draw with it, and a page for people.

    Args:
        trained: The network; any of NETWORKS.
        path: The folder; what has that name is replaced.

    Returns:
        A sentence on how far it is from what torch says, on random inputs.

    Raises:
        MissingExtraError: onnx, onnxscript or onnxruntime is not installed.
        ConfigError: The network has an operation that ONNX does not know.
        OutputError: The folder cannot be written, or what was written says something else than
            the network.
    """
    _need_packages()
    if readable(str(path)) != str(path):
        raise OutputError(f"onnxruntime reads no folder called {path}: choose another name.")
    facts = told(trained)
    asked = Asked(trained.network).eval()
    inputs = _inputs(trained, batch=2)
    with new_folder(path) as folder:
        program = _traced(asked, inputs)
        program.model.metadata_props.update(
            {f"kao.{name}": json.dumps(fact) for name, fact in facts.items() if name != "path"}
        )
        large = sum(t.numel() * t.element_size() for t in trained.weights.values()) > _LARGEST
        program.save(folder / FILE, external_data=large)
        sidecar = {"format": 1, "name": trained.name, "weights": trained.kind, **facts}
        sidecar |= {"file": FILE, "opset": OPSET, "inputs": _meanings(inputs, trained)}
        (folder / SIDECAR).write_text(json.dumps(sidecar, indent=2) + "\n", encoding="utf-8")
        (folder / README).write_bytes(encoded(page(trained)))
        worst = max(
            _difference(folder / FILE, asked, _inputs(trained, batch=batch)) for batch in _PROBES
        )
        if not worst <= AGREES:
            raise OutputError(
                f"The ONNX file differs from the network by {worst:.2g}, where {AGREES:g} is "
                f"rounding, so it was not kept: export --to safetensors instead."
            )
    return (f"ONNX and torch agree to {worst:.1g} of the largest output.",)


def page(trained: Trained) -> str:
    """The README of the folder: a program of NumPy and onnxruntime that draws."""
    classes = classes_of(trained)
    names = ", ".join(f"{i}: {plain(name)}" for i, name in enumerate(classes))
    told_class = (
        f"\n`class` is the number of the class of each picture, int64: {names}; "
        f"{len(classes)} stands for none.\n"
        if classes
        else ""
    )
    fed = ', "class": np.full(count, 0)' if classes else ""
    lines = limited(trained.config.sampling.threshold).splitlines()
    kept = "".join(f"    {line}\n" for line in lines)
    size = trained.size
    return f"""\
# {plain(trained.name)} as ONNX

`{FILE}` (opset {OPSET}) is the network alone: from noisy pictures `x`, float32 (batch, 3, {size}, \
{size}),
and the noise level as it was told it, `label`, float32 (batch,), to `y`. `{SIDECAR}` says what \
they mean
and holds a path of DDIM steps (Song et al. 2021) as plain numbers. This program draws:
{told_class}
```python
import json

import numpy as np
import onnxruntime

count, seed = 4, 0
about = json.load(open("{SIDECAR}"))
session = onnxruntime.InferenceSession("{FILE}", providers=["CPUExecutionProvider"])
*path, end = [*about["path"]]

noise = np.random.default_rng(seed).standard_normal((count, 3, {size}, {size}), dtype=np.float32)
x = np.float32(path[0]["sigma"]) * noise
for here, there in zip(path, [*path[1:], end]):
    label = np.full(count, here["label"], np.float32)
    feed = {{"x": (x * here["scale"]).astype(np.float32), "label": label{fed}}}
    y = session.run(None, feed)[0][:, :3]
    alpha, sigma, a, b = here["alpha"], here["sigma"], here["a"], here["b"]
    x0 = (b * x - sigma * y) / (alpha * b - sigma * a)
    eps = (alpha * y - a * x) / (alpha * b - sigma * a)
{kept}    x = there["alpha"] * x0 + there["sigma"] * eps

pictures = np.clip(127.5 * (x + 1), 0, 255).round().astype(np.uint8).transpose(0, 2, 3, 1)
```
"""


def _need_packages() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, extra="onnx", purpose="write ONNX") from error


def _inputs(trained: Trained, *, batch: int) -> dict[str, Tensor]:
    """Random inputs by name, the same for the same batch."""
    generator = torch.Generator().manual_seed(batch)
    size = trained.size
    inputs = {
        "x": torch.randn(batch, 3, size, size, generator=generator),
        "label": 1000 * torch.rand(batch, generator=generator),
    }
    if classes := len(classes_of(trained)):
        inputs["class"] = torch.randint(classes + 1, (batch,), generator=generator)
    return inputs


def _traced(asked: Asked, inputs: Mapping[str, Tensor]) -> Any:
    """The network as an ONNX program.

    Raises:
        ConfigError: It has an operation that ONNX does not know.
    """
    batch = torch.export.Dim("batch", min=1)
    with _quiet():
        try:
            program: Any = torch.onnx.export(
                asked,
                tuple(inputs.values()),
                dynamo=True,
                input_names=list(inputs),
                output_names=["y"],
                dynamic_shapes=({0: batch},) * len(inputs),
                opset_version=OPSET,
                verbose=False,
            )
        except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
            raise ConfigError(
                f"This network cannot be written as ONNX ({_last_line(error)}): export --to "
                f"safetensors instead."
            ) from error
    _forget(program.model)
    return program


def _forget(model: Any) -> None:
    """Remove what the exporter notes on each operation: the lines of source files it came from.

    They are paths of this machine, and nothing reads them.
    """
    for graph in (model.graph, *model.functions.values()):
        graph.metadata_props.clear()
        for node in graph.all_nodes():
            for noted in (node, node.graph, *node.outputs):
                noted.metadata_props.clear()
                noted.doc_string = None
        for value in graph.inputs:
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()


def _difference(file: Path, asked: Asked, inputs: Mapping[str, Tensor]) -> float:
    """Between what the file says and what the network says, at most, over the largest output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    fed = {name: tensor.numpy() for name, tensor in inputs.items()}
    theirs = session.run(None, fed)[0]
    with torch.no_grad():
        ours = asked(*inputs.values()).numpy()
    return float(np.abs(theirs - ours).max() / max(1.0, np.abs(ours).max()))


def _meanings(inputs: Mapping[str, Tensor], trained: Trained) -> dict[str, str]:
    size = trained.size
    meanings = {
        "x": f"float32 (batch, 3, {size}, {size}): the noisy pictures alpha x_0 + sigma eps, "
        f"multiplied by the scale of their level",
        "label": "float32 (batch,): the label of their level",
        "class": f"int64 (batch,): the number of the class; {len(classes_of(trained))}: none",
    }
    return {name: meanings[name] for name in inputs}


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of packages that are not needed."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
