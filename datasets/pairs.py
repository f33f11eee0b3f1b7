"""Which low-resolution image belongs to which high-resolution one, by their names."""

import re
from collections import defaultdict
from pathlib import Path


def pair_key(path: Path) -> str:
    """What the files of a pair have in common: the name without suffix and without a trailing x2, x3, ..."""
    return re.sub(r'x\d+$', '', path.stem)


def partners(lr: list[Path], hr: list[Path]) -> list[tuple[Path, Path]]:
    """The pairs among the files `lr` and `hr`, in the order of `hr`; who has no partner is left out.

    LR's names are HR's, or all have a scale behind these, or some do: whatever gives most pairs, since HR's own names
    may end as a scale does. Files of one stem go by the order of their suffixes.
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
