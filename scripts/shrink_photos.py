r"""Copies folders of photos as AVIF into one of about a given number of megabytes, to send it to another machine.

    python scripts/shrink_photos.py load/photos2k/train_HR load/photos/OPEN240 load/photos/BSD400 \
        --output load/small --megabytes 38

Each folder is copied to one of the same name in --output. All photos get the same quality, the highest at which they
fit, estimated from every tenth of them; their sizes in pixels are unchanged. Colours keep the full resolution: WebP,
which halves it, is 3 dB further from the photos in files of nearly the same size.
"""

import argparse
import io
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folders', nargs='+', type=Path)
    parser.add_argument('--output', type=Path, required=True)
    parser.add_argument('--megabytes', type=float, default=38)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image

from datasets.cache import in_parallel
from datasets.image_file import read_image
from datasets.image_folder import list_images
from files import atomic_write, file_name

QUALITIES = 95, 92, 90, 87, 85, 82, 80, 77, 75, 70, 65, 60, 50, 40
EACH = 10  # every tenth photo is used to choose the quality


def avif(path: Path, quality: int) -> bytes:
    """The photo at `path` as an AVIF file."""
    file = io.BytesIO()
    Image.fromarray(read_image(path)).save(file, 'AVIF', quality=quality, subsampling='4:4:4', speed=7, max_threads=1)
    return file.getvalue()


def choose_quality(paths: list[Path], limit: float) -> int:
    """The highest of QUALITIES at which `paths` take at most `limit` bytes, estimated from every tenth of them."""
    some = paths[::EACH]
    for quality in QUALITIES:
        taken = sum(map(len, in_parallel(lambda path, quality=quality: avif(path, quality), some, f'at {quality}')))
        if taken * len(paths) / len(some) <= limit:
            return quality
    raise UserError(f'{len(paths)} photos do not fit into {limit / 1e6:.0f} MB, not even at quality {QUALITIES[-1]}')


def main() -> None:
    args = parse_args()
    paths = {folder.resolve().name: list_images(folder) for folder in args.folders}
    if len(paths) < len(args.folders):
        raise UserError('two of the folders have the same name')
    for name, found in paths.items():
        if len({path.stem for path in found}) < len(found):
            raise UserError(f'{name}: two of its photos have the same name except for the suffix')
    everything = [path for found in paths.values() for path in found]
    quality = choose_quality(everything, args.megabytes * 1e6 * 0.97)  # the rest may compress worse than the sample
    taken = 0
    for name, found in paths.items():
        target = args.output / name
        target.mkdir(parents=True, exist_ok=True)
        for path, content in zip(found, in_parallel(lambda path: avif(path, quality), found, name), strict=True):
            with atomic_write(target / file_name(path.stem, '.avif')) as file:
                file.write(content)
            taken += len(content)
    print(f'{args.output}: {len(everything)} photos at quality {quality}, {taken / 1e6:.1f} MB')


if __name__ == '__main__':
    run_cli(main)
