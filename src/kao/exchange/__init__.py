"""Exchange: other people's weights in, ours out.

A `Model` is a network with its weights in our terms, whoever made it.  Each format that is read is
one entry of `FORMATS`; `renaming` says, in both directions, which tensor of theirs is which of
ours, and `schedulers` what their noise levels are called here.  A `Trained` network of ours goes
out in one of `FORMS`, and `card` and `hub` bring it to others.
"""

from kao.exchange.formats import Facts, Format
from kao.exchange.model import Model
from kao.exchange.opening import FORMATS, import_model, recognised
from kao.exchange.trained import Trained
from kao.exchange.writers import FORMS, Form

__all__ = [
    "FORMATS",
    "FORMS",
    "Facts",
    "Form",
    "Format",
    "Model",
    "Trained",
    "import_model",
    "recognised",
]
