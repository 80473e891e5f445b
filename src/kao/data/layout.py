"""How folders become classes, from the top down.

1. One folder that holds everything (`images/0.jpg`) is entered and says nothing.
2. Folders named train, val, test and the like only: `train` is entered, and a note says so.
3. Two or more folders with nothing beside them are classes, in natural order (2 before 10).
4. Pictures beside folders: all of them are taken, and there are no classes.

Wanted classes end the descent at the first level where they are all folders.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kao.data.names import natural

_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


@dataclass(frozen=True)
class Layout:
    """Where the pictures are and what their folders mean.

    Attributes:
        root: The folder that was entered, "" or ending in "/": names of pictures start with it.
        classes: Folders of `root` that are classes, in natural order.
        notes: What a person might not expect.
    """

    root: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def class_of(self, name: str) -> str | None:
        """The class folder that a picture lies in, or None."""
        top, slash, _ = name.removeprefix(self.root).partition("/")
        return top if slash and top in self.classes else None


def layout(names: Sequence[str], *, wanted: Sequence[str] = ()) -> Layout:
    """Read the meaning of a tree of folders from the names of its pictures.

    Args:
        names: Paths of pictures, with "/" between the parts.
        wanted: Classes that are asked for; where they are no folders, they are ignored.
    """
    root = ""
    notes: list[str] = []
    while True:
        tops = [name.removeprefix(root).partition("/") for name in names if name.startswith(root)]
        folders = {top for top, slash, _ in tops if slash}
        beside = sum(not slash for _, slash, _ in tops)
        if wanted and folders.issuperset(wanted):
            return Layout(root, natural(wanted), tuple(notes))
        if beside:
            if folders:
                shown = ", ".join(natural(folders)[:5])
                notes.append(
                    f"{beside:,} pictures lie beside folders ({shown}), "
                    f"so folders are not taken for classes"
                )
            return Layout(root, (), tuple(notes))
        if len(folders) == 1:
            root += f"{folders.pop()}/"
        elif "train" in folders and folders <= _SPLITS:
            others = ", ".join(sorted(folders - {"train"}))
            notes.append(f"took the folder {root}train and left out {others}")
            root += "train/"
        else:
            return Layout(root, natural(folders), tuple(notes))
