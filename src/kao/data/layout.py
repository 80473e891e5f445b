"""How folders become classes, from the top down.

1. One folder that holds everything (`images/0.jpg`) is entered and says nothing.
2. Folders named train, val, test and the like (`SPLITS`): that to train on is entered, also inside
   each class, and a note says what was left out.  Without one all are taken.
3. Folders of a thousand or ten thousand files numbered throughout, as those of FFHQ, StyleGAN's
   tools and img2dataset (00001/img00001234.png, 01000/01234.png), mean nothing.
4. Two or more folders with nothing beside them are classes, in natural order (2 before 10).
5. Pictures beside folders: all of them are taken, and there are no classes.

Wanted classes end the descent at the first level where they are all folders.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from kao.data.names import listed, natural

TRAIN = frozenset({"train", "training", "trn", "trainset", "trainval"})
SPLITS = TRAIN | {
    *("val", "valid", "validation", "valset", "dev", "development"),
    *("test", "testing", "tst", "testset", "eval", "evaluation", "holdout", "pred"),
}
"""Words in the names of folders, in lower case, that are parts of a set and no classes."""

_NUMBERED = re.compile(r"(\d{5,18})/(?:img(\d{8})|(\d{5,18}))\.\w+")
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")


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
    root, notes, left_out = "", list[str](), list[str]()
    while True:
        here = [name for name in names if name.startswith(root)]
        tops = [name.removeprefix(root).partition("/") for name in here]
        folders = {top for top, slash, _ in tops if slash}
        beside = sum(not slash for _, slash, _ in tops)
        if wanted and folders.issuperset(wanted):
            return _in_classes(root, wanted, here, notes, left_out)
        train, rest = _parted(folders)
        if rest and (train or beside):
            left = natural({f"{root}{folder}/" for folder in rest})
            left_out += left
            count = sum(name.startswith(left) for name in here)
            more = f" and {beside:,} pictures beside it" if len(train) == 1 and beside else ""
            took = ", ".join(f"{root}{folder}" for folder in train)
            notes.append(
                f"took {f'the folder {took}' if train else f'{beside:,} pictures'} and left "
                f"out {listed(left, 5)} ({count:,} pictures){more}"
            )
            if len(train) != 1:
                return Layout(root, (), tuple(notes), tuple(left_out))
            root += f"{train[0]}/"
        elif beside:
            if folders:
                shown = ", ".join(natural(folders)[:5])
                notes.append(
                    f"{beside:,} pictures lie beside folders ({shown}), "
                    f"so folders are not taken for classes"
                )
            return Layout(root, (), tuple(notes), tuple(left_out))
        elif len(folders) == 1:
            root += f"{folders.pop()}/"
        elif rest:
            shown = listed(natural(rest), 5)
            notes.append(f"took {shown} together: parts of a set, and no classes")
            return Layout(root, (), tuple(notes), tuple(left_out))
        elif all(_numbered(name.removeprefix(root)) for name in here):
            return Layout(root, (), tuple(notes), tuple(left_out))
        else:
            return _in_classes(root, folders, here, notes, left_out)


def _numbered(name: str) -> bool:
    """Whether the number of a file says which folder it lies in."""
    if not (met := _NUMBERED.fullmatch(name)):
        return False
    if met[2]:
        return True
    folder, file = int(met[1]), int(met[3])
    return folder in (file // 1000, file // 1000 * 1000, file // 10_000)


def _in_classes(
    root: str,
    folders: Iterable[str],
    names: Iterable[str],
    notes: Sequence[str],
    left_out: Sequence[str],
) -> Layout:
    """Folders as classes; of those that are in parts themselves, the parts to train on."""
    depth = root.count("/") + 2
    parts = defaultdict[str, Counter[str]](Counter)
    for name in names:
        *above, part = name.split("/")[:depth]
        # A picture in the class itself has no word.
        parts["/".join(above)][part if name.count("/") >= depth else ""] += 1
    parted = {above: _parted(inside) for above, inside in parts.items()}
    rests = {above: rest for above, (train, rest) in parted.items() if train}
    left = natural({f"{above}/{part}/" for above, rest in rests.items() for part in rest})
    if not left:
        return Layout(root, natural({*folders}), tuple(notes), tuple(left_out))
    count = sum(parts[above][part] for above, rest in rests.items() for part in rest)
    note = f"left out {listed(left, 5)} ({count:,} pictures): not to train on"
    return Layout(root, natural({*folders}), (*notes, note), (*left_out, *left))


def _parted(folders: Iterable[str]) -> tuple[tuple[str, ...], set[str]]:
    """Of folders that are parts of a set, those to train on and the others; else none.

    Of folders to train on and others, a word among other words will do if each has one, as in "test
    images"; and where both are named so plainly, what lies beside them ("extra") is left out, too.
    """
    words = {folder: {*map(str.lower, _WORD.findall(folder))} for folder in folders}
    plain = natural({folder for folder, word in words.items() if word and word <= SPLITS})
    named = natural({folder for folder, word in words.items() if word & SPLITS})
    for known in (plain, named if len(named) == len(words) else ()):
        train = tuple(folder for folder in known if words[folder] & TRAIN)
        if train and len(train) < len(known):
            return train, set(words) - {*train}
    if len(plain) < len(words) or (len(plain) == 1 and words[plain[0]] & TRAIN):
        return (), set()
    return (), set(words)
