"""Makes CelebA-HQ's folders 256, 128, 64 and 32 for LIIF's configs from the photos of 1024x1024 pixels.

    python scripts/resize.py load/celebAHQ/data1024x1024

Each is a folder of PNGs beside the given one: 256 is made with PIL's bicubic filter, and the others in the same way
from 256. Existing files are kept, so an interrupted run can be continued.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', type=Path, help='the photos, such as load/celebAHQ/data1024x1024')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image

from datasets.cache import in_parallel
from datasets.image_file import read_image
from datasets.image_folder import list_images
from datasets.transforms import resize
from files import atomic_write, file_name

LARGEST, SMALLER = 256, (128, 64, 32)


def reduce(path: Path) -> None:
    """Writes those reduced images of the photo at `path` that do not exist yet."""
    targets = {side: path.parents[1] / str(side) / file_name(path.stem, '.png') for side in (LARGEST, *SMALLER)}
    absent = [side for side, target in targets.items() if not target.exists()]
    if not absent:
        return
    large = resize(read_image(path), (LARGEST, LARGEST))
    for side in absent:
        small = large if side == LARGEST else resize(large, (side, side))
        with atomic_write(targets[side]) as file:
            Image.fromarray(small).save(file, 'PNG')


def main() -> None:
    folder = parse_args().folder.absolute()
    paths = list_images(folder)
    if len({path.stem for path in paths}) < len(paths):
        raise UserError(f'{folder}: two of its photos have the same name except for the suffix')
    for side in (LARGEST, *SMALLER):
        (folder.parent / str(side)).mkdir(exist_ok=True)
    in_parallel(reduce, paths, 'reducing')
    print(f'{folder.parent}: {len(paths)} photos in {", ".join(map(str, (LARGEST, *SMALLER)))}')


if __name__ == '__main__':
    run_cli(main)
