"""The forms in which a network is given away."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from kao.exchange.diffusers_folder import write_diffusers
from kao.exchange.onnx import write_onnx
from kao.exchange.own import write_own
from kao.exchange.trained import Trained


@dataclass(frozen=True)
class Form:
    """One form.

    Attributes:
        what: It is, in words.
        ending: Of its file; "" where it is a folder.
        write: Writes it to a path, whole or not at all, and returns sentences for the user.
        slow: What takes its time, as a sentence; "" where nothing does.
    """

    what: str
    ending: str
    write: Callable[[Trained, Path], tuple[str, ...]]
    slow: str = ""


FORMS: Mapping[str, Form] = {
    "diffusers": Form("the pipeline folder", "", write_diffusers),
    "safetensors": Form("the file of weights", ".safetensors", write_own),
    "onnx": Form(
        "the folder with the ONNX file",
        "",
        write_onnx,
        slow="Tracing the network and holding it against torch, which may take a minute.",
    ),
}
"""By the name that `kao export --to` takes."""
