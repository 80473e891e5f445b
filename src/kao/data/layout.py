"""How folders become classes, from the top down.

1. One folder that holds everything (`images/0.jpg`) is entered and says nothing.
2. Folders named train, val, test and the like only (`SPLITS`): that to train on is entered, also
   inside each class, and a note says what was left out.  Without one all are taken.
3. Folders of thousands as StyleGAN's tools number them (00000/img00000000.png) mean nothing.
4. Two or more folders with nothing beside them are classes, in natural order (2 before 10).
5. Pictures beside folders: all of them are taken, and there are no classes.

Wanted classes end the descent at the first level where they are all folders.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kao.data.names import listed, natural

_TRAIN = frozenset({"train", "training", "trn"})
SPLITS = _TRAIN | {
    *("val", "valid", "validation", "dev", "development"),
    *("test", "testing", "tst", "eval", "evaluation", "holdout"),
}
"""Words in the names of folders, in lower case, that are parts of a set and no classes."""

_NUMBERED = re.compile(r"\d{5}/img\d{8}\.\w+")


@dataclass(frozen=True)
class Layout:
    """Where the pictures are and what their folders mean.

    Attributes:
        root: The folder that was entered, "" or ending in "/": names of pictures start with it.
        classes: Folders of `root` that are classes, in natural order.
        notes: What a person might not expect.
        left_out: Beginnings of the names of pictures that are not to be trained on.
    """

    root: str
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

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
    root, notes = "", list[str]()
    while True:
        here = [name for name in names if name.startswith(root)]
        tops = [name.removeprefix(root).partition("/") for name in here]
        folders = {top for top, slash, _ in tops if slash}
        beside = sum(not slash for _, slash, _ in tops)
        if wanted and folders.issuperset(wanted):
            return _in_classes(root, wanted, here, notes)
        train, rest = _parted(folders)
        if rest and (train or beside):
            left = natural({f"{root}{folder}/" for folder in rest})
            more = f" and {beside:,} pictures beside it" if train and beside else ""
            notes.append(
                f"took {f'the folder {root}{train}' if train else f'{beside:,} pictures'} and left "
                f"out {listed(left, 5)}{more}"
            )
            if not train:
                return Layout(root, (), tuple(notes), left)
            root += f"{train}/"
        elif beside:
            if folders:
                shown = ", ".join(natural(folders)[:5])
                notes.append(
                    f"{beside:,} pictures lie beside folders ({shown}), "
                    f"so folders are not taken for classes"
                )
            return Layout(root, (), tuple(notes))
        elif len(folders) == 1:
            root += f"{folders.pop()}/"
        elif rest:
            shown = listed(natural(rest), 5)
            notes.append(f"took {shown} together: parts of a set, and no classes")
            return Layout(root, (), tuple(notes))
        elif all(_NUMBERED.fullmatch(name.removeprefix(root)) for name in here):
            return Layout(root, (), tuple(notes))
        else:
            return _in_classes(root, folders, here, notes)


def _in_classes(
    root: str, folders: Iterable[str], names: Iterable[str], notes: Sequence[str]
) -> Layout:
    """Folders as classes; of those that are in parts themselves, the parts to train on."""
    depth = root.count("/") + 2
    parts: dict[str, set[str]] = {}
    for name in names:
        above, _, part = "/".join(name.split("/")[:depth]).rpartition("/")
        parts.setdefault(above, set()).add(part)
    parted = {above: _parted(inside) for above, inside in parts.items()}
    if not all(train and rest for train, rest in parted.values()):
        return Layout(root, natural({*folders}), tuple(notes))
    left = natural({f"{above}/{part}/" for above, (_, rest) in parted.items() for part in rest})
    note = f"left out {listed(left, 5)}: not to train on"
    return Layout(root, natural({*folders}), (*notes, note), left)


def _parted(folders: Iterable[str]) -> tuple[str, set[str]]:
    """Of folders that are parts of a set, that to train on and the others; else "" and none.

    Beside one to train on, a word among others will do, as in "test images": by itself it may be
    somebody's name.
    """
    words = {folder: {*re.split(r"[\W_\d]+", folder.lower())} & SPLITS for folder in folders}
    train = natural({folder for folder, word in words.items() if word & _TRAIN})
    if train and all(words.values()):
        return train[0], set(words) - {train[0]}
    if all(folder.lower() in SPLITS for folder in words):
        return "", set(words)
    return "", set()
