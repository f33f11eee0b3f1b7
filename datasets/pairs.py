"""Finds the high-resolution image that belongs to a low-resolution one, by their names."""

import re
from collections import defaultdict
from pathlib import Path


def pair_key(path: Path) -> str:
    """What the files of a pair have in common: the name without the suffix and a trailing x2, x3, ..."""
    return re.sub(r'x\d+$', '', path.stem)


def partners(lr: list[Path], hr: list[Path]) -> list[tuple[Path, Path]]:
    """The pairs among the files `lr` and `hr`, in the order of `hr`; files without a partner are left out.

    The names in LR are the same as in HR, or have a scale appended, all of them or some. HR's own names may look as if
    they ended in a scale, so all three readings are tried, and the one that gives most pairs is used. Files with the
    same stem are paired in the order of their suffixes.
    """
    stems = defaultdict(list)
    for path in hr:
        stems[path.stem].append(path)

    def by(key):
        files = defaultdict(list)
        for path in lr:
            files[key(path)].append(path)
        return [pair for stem in stems for pair in zip(files[stem], stems[stem], strict=False)]

    keys = lambda path: path.stem, pair_key, lambda path: path.stem if path.stem in stems else pair_key(path)
    return max(map(by, keys), key=len)
