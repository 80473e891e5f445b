"""What people typed, as Markdown shows it and does not read it."""

import re

from kao.files import readable

_MARKS = re.compile(r"[\\`*\[\]<>|]|^#")


def plain(text: str) -> str:
    """A text on one line, in which nothing is a heading, a link, a tag or a column's end.

    Args:
        text: A name or a sentence from outside, of any characters.
    """
    return _MARKS.sub(r"\\\g<0>", readable(" ".join(text.split())))
