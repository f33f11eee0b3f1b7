"""Puts the images that the configs use into load/.

    python scripts/prepare_data.py div2k|benchmark              from the official pages
    python scripts/prepare_data.py div2k|benchmark --from DIR   links to folders that exist already
    python scripts/prepare_data.py sample                       a few photos that come with installed packages

Complete folders are kept; run the script again to resume an interrupted download. Archives that were downloaded by hand
are used if they are in load/div2k or load/benchmark.
"""

import argparse
import hashlib
import importlib.resources
import os
import shutil
import sys
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import run_cli
from errors import UserError

# HR, and the folders in the benchmarks' LR_bicubic with the scales that configs/test/supplied-lr reads
PARTS = 'HR', 'LR_bicubic/X2', 'LR_bicubic/X3', 'LR_bicubic/X4'
# set: (page, {archive: {folder: number of images in it}})
SETS = {
    'div2k': ('https://data.vision.ee.ethz.ch/cvl/DIV2K', {
        'DIV2K_train_HR.zip': {'DIV2K_train_HR': 800},
        'DIV2K_valid_HR.zip': {'DIV2K_valid_HR': 100},
        'DIV2K_train_LR_bicubic_X2.zip': {'DIV2K_train_LR_bicubic/X2': 800},
        'DIV2K_valid_LR_bicubic_X2.zip': {'DIV2K_valid_LR_bicubic/X2': 100},
        'DIV2K_valid_LR_bicubic_X3.zip': {'DIV2K_valid_LR_bicubic/X3': 100},
        'DIV2K_valid_LR_bicubic_X4.zip': {'DIV2K_valid_LR_bicubic/X4': 100},
    }),
    'benchmark': ('https://cv.snu.ac.kr/research/EDSR', {
        'benchmark.tar': {f'{name}/{part}': n for part in PARTS for name, n in (
            ('Set5', 5), ('Set14', 14), ('B100', 100), ('Urban100', 100))},
    }),
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('set', choices=[*SETS, 'sample'])
    parser.add_argument('--root', type=Path, default=Path('load'), help='where the data goes (default: load)')
    where = parser.add_mutually_exclusive_group()
    where.add_argument('--from', type=Path, dest='source', metavar='DIR', help='link the folders in DIR instead')
    where.add_argument('--mirror', metavar='URL', help='another page that holds the archives')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image

from datasets.image_folder import left_out
from files import writing
from scripts.download import announce, download

# MD5 of the archives, from TorchSR (https://pypi.org/project/torchsr) 1.0.4
MD5 = {
    'DIV2K_train_HR.zip': 'bdc2d9338d4e574fe81bf7d158758658',
    'DIV2K_valid_HR.zip': '9fcdda83005c5e5997799b69f955ff88',
    'DIV2K_train_LR_bicubic_X2.zip': '9a637d2ef4db0d0a81182be37fb00692',
    'DIV2K_valid_LR_bicubic_X2.zip': '1512c9a3f7bde2a1a21a73044e46b9cb',
    'DIV2K_valid_LR_bicubic_X3.zip': '18b1d310f9f88c13618c287927b29898',
    'DIV2K_valid_LR_bicubic_X4.zip': '21962de700c8d368c6ff83314480eff0',
    'benchmark.tar': '4ace41d33c2384b97e6b320cd0afd6ba',
}
SAMPLE = {  # colour photos (package/path); no scene is in both parts
    'train': ('skimage/data/chelsea.png', 'skimage/data/coffee.png', 'skimage/data/ihc.png',
              'skimage/data/motorcycle_left.png', 'skimage/data/rocket.jpg', 'sklearn/datasets/images/flower.jpg'),
    'valid': ('skimage/data/astronaut.png', 'sklearn/datasets/images/china.jpg'),
}
NEXT = {
    'div2k': 'python train_liif.py --config configs/train-div2k/train_edsr-baseline-A-liif.yaml',
    'benchmark': 'bash scripts/test-benchmark.sh edsr-baseline-A-liif-pixel',
    'sample': 'python train_liif.py --config configs/quickstart/train_sample.yaml',
}
DAMAGED = (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def count(folder):
    """The number of images in `folder`, 0 if it does not exist."""
    return sum(left_out(path) is None for path in folder.iterdir()) if folder.is_dir() else 0


def miscounts(target, folders):
    """A text for each of `folders` below `target` that has a wrong number of images."""
    found = {folder: count(target / folder) for folder in folders}
    return [f'{folder} has {found[folder]} images, not {n}' for folder, n in folders.items() if found[folder] != n]


# --- unpack ----------------------------------------------------------------------------------------


def files_in(archive):
    """Yields (path, open file) for each regular file in a zip or tar archive."""
    if archive.suffix == '.zip':
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                if not info.is_dir():
                    yield info.filename, opened.open(info)
    else:
        with tarfile.open(archive, 'r:') as opened:
            for member in opened:
                if member.isfile():
                    yield member.name, opened.extractfile(member)


def unpack(archive, folders, target):
    """Writes the images of `folders` in `archive` to the same folders below `target`.

    A path in the archive only selects one of these folders and a file name, so none can lead outside. Links are
    ignored, as they are not regular files.
    """
    for folder in folders:
        (target / folder).mkdir(parents=True)
    for name, file in files_in(archive):
        path = PurePosixPath(name)
        for folder in folders:
            # The folder may be nested in others; macOS adds files whose names start with a dot.
            if f'/{path.parent}'.endswith(f'/{folder}') and path.suffix == '.png' and path.name[0] != '.':
                if len(path.name.encode()) > 255:
                    raise ValueError(f'a file name of {len(path.name)} characters')
                copy_path = target / folder / path.name
                with file, writing(copy_path), open(copy_path, 'wb') as copy:
                    shutil.copyfileobj(file, copy)


def check_md5(archive):
    """Raises ValueError if the file `archive` is not the published one."""
    with open(archive, 'rb') as file:
        found = hashlib.file_digest(file, 'md5').hexdigest()
    if found != MD5.get(archive.name, found):
        raise ValueError(f'its MD5 is {found}, not {MD5[archive.name]}')


def check(target, folders):
    """Raises ValueError if a folder below `target` lacks images or has a damaged one."""
    if wrong := miscounts(target, folders):
        raise ValueError(', '.join(wrong))
    for folder in folders:
        for path in (target / folder).iterdir():
            try:
                with Image.open(path, formats=['PNG']) as image:
                    image.verify()
            except (OSError, SyntaxError, ValueError) as error:
                raise ValueError(f'{folder}/{path.name} is damaged: {error}') from None


# --- the three sets --------------------------------------------------------------------------------


def add_archive(url, folders, root):
    """Downloads the archive at `url` and moves its `folders` to `root`, complete and checked, or not at all."""
    archive = root / PurePosixPath(url).name
    download(url, archive)
    with tempfile.TemporaryDirectory(dir=root, prefix='.unpack-') as staging:
        try:
            check_md5(archive)
            unpack(archive, folders, Path(staging))
            check(Path(staging), folders)
        except DAMAGED as error:
            archive.unlink()
            raise UserError(f'{url}: is damaged ({error}) and was removed; run this again, or give another page '
                            'with --mirror') from None
        for folder in folders:
            (root / folder).parent.mkdir(parents=True, exist_ok=True)
            os.replace(Path(staging) / folder, root / folder)
    archive.unlink()


def add_links(source, folders, root):
    """Links those of `folders`, {name: number of images}, that are in `source` to the same places below `root`."""
    found = [folder for folder in folders if (source / folder).is_dir()]
    if folders and not found:
        looked_for = ', '.join(f'{folder} ({n} images)' for folder, n in folders.items())
        raise UserError(f'{source}: has none of the folders that were looked for: {looked_for}')
    for folder in found:
        (root / folder).parent.mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to((source / folder).resolve())


def prepare_set(name, root, source=None, mirror=None):
    """Fills root/`name` with links to `source`, or from the official page or a `mirror`; checks the image counts."""
    if source is not None and not source.is_dir():
        raise UserError(f'{source}: is not a folder')
    page, archives = mirror or SETS[name][0], SETS[name][1]
    root = root / name
    root.mkdir(parents=True, exist_ok=True)
    expected = {folder: n for folders in archives.values() for folder, n in folders.items()}
    absent = {folder: n for folder, n in expected.items() if not os.path.lexists(root / folder)}
    if source is not None:
        add_links(source, absent, root)
    else:
        needed = {archive: {folder: n for folder, n in folders.items() if folder in absent}
                  for archive, folders in archives.items() if absent.keys() & folders}
        announce(page, [archive for archive in needed if not (root / archive).exists()], root)
        for archive, folders in needed.items():
            add_archive(f'{page}/{archive}', folders, root)
    for folder in expected:
        print(f'{root / folder}: {count(root / folder)} images')
    if wrong := miscounts(root, expected):
        looked = f' (looked for in {source})' if source else ''
        raise UserError(f'{root}: {", ".join(wrong)}{looked}; remove incomplete folders, and run this without '
                        '--from to download what is missing')


def prepare_sample(root):
    """Copies photos included in scikit-image and scikit-learn to root/sample/{train,valid}."""
    for part, photos in SAMPLE.items():
        folder = root / 'sample' / part
        folder.mkdir(parents=True, exist_ok=True)
        for photo in map(PurePosixPath, photos):
            try:
                data = importlib.resources.files(photo.parts[0]).joinpath(*photo.parts[1:]).read_bytes()
            except (ModuleNotFoundError, FileNotFoundError):
                raise UserError(f'{photo}: is missing; pip install -r requirements.txt') from None
            (folder / photo.name).write_bytes(data)
        print(f'{folder}: {len(photos)} images')


def main():
    args = parse_args()
    if args.set == 'sample':
        prepare_sample(args.root)
    else:
        prepare_set(args.set, args.root, args.source, args.mirror)
    print(f'next: {NEXT[args.set]}')


if __name__ == '__main__':
    run_cli(main)
