"""Makes load/photos2k, the 2K photos that the weights in pretrained/ were trained and validated on.

    python scripts/prepare_photos2k.py [--root load] [--mirror http://deb.debian.org/debian]

They are the files of four of Debian's wallpaper packages (170 MB; the licences are in each package's copyright file)
that pretrained/photos2k.txt lists, reduced with a Lanczos filter to a long side of at most 2040. Existing files are
kept; run the script again to resume an interrupted download.
"""

import argparse
import hashlib
import io
import sys
import tarfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--root', type=Path, default=Path('load'), help='where the data goes (default: load)')
    parser.add_argument('--mirror', default='http://deb.debian.org/debian', metavar='URL')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from PIL import Image

from files import atomic_write
from scripts.download import download
from scripts.prepare_data import count

LIST = ROOT / 'pretrained/photos2k.txt'
SIDE = 2040
# package: (file on the mirror, SHA-256), as in Debian 12
PACKAGES = {
    'lomiri-wallpapers-16.04': ('pool/main/l/lomiri-wallpapers/lomiri-wallpapers-16.04_20.04.0-2_all.deb',
                                'a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab'),
    'lomiri-wallpapers-20.04': ('pool/main/l/lomiri-wallpapers/lomiri-wallpapers-20.04_20.04.0-2_all.deb',
                                'd44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709'),
    'mate-backgrounds': ('pool/main/m/mate-backgrounds/mate-backgrounds_1.26.0-1_all.deb',
                         '7bf4c2209f34b4f61ba6d24c8b58c28b361e82e4b943aae6d42c030169af9e04'),
    'plasma-workspace-wallpapers': ('pool/main/p/plasma-workspace-wallpapers/'
                                    'plasma-workspace-wallpapers_5.27.5-2_all.deb',
                                    '32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b'),
}


def read_list():
    """{package: {path in it: file to write}}, from LIST, in which each line is a file and its package/path."""
    photos = {package: {} for package in PACKAGES}
    for target, source in map(str.split, LIST.read_text(encoding='utf-8').splitlines()):
        package, path = source.split('/', 1)
        photos[package][path] = target
    return photos


def files_of(package):
    """The open tar archive in the bytes of a Debian package: an ar archive, whose files have headers of 60 bytes."""
    file = io.BytesIO(package)
    file.seek(8)
    while not (header := file.read(60)).startswith(b'data.tar'):
        size = int(header[48:58])
        file.seek(size + size % 2, io.SEEK_CUR)
    return tarfile.open(fileobj=io.BytesIO(file.read(int(header[48:58]))))


def reduced(image):
    """`image` as RGB, reduced to a long side of SIDE if it is longer."""
    scale = min(1, SIDE / max(image.size))
    return image.convert('RGB').resize([round(n * scale) for n in image.size], Image.LANCZOS)


def add_photos(url, sha256, photos, folder):
    """Writes the `photos` of the package at `url`, {path: file}, to `folder`."""
    package = folder / PurePosixPath(url).name
    download(url, package)
    content = package.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        package.unlink()
        raise UserError(f'{url}: is not the package that we used, and was removed; give another page with --mirror')
    with files_of(content) as files:
        for path, target in photos.items():
            source = files.extractfile(f'./{path}')
            with Image.open(source, formats=['JPEG', 'PNG']) as image, atomic_write(folder / target) as file:
                options = {'format': 'PNG'} if target.endswith('.png') else {
                    'format': 'JPEG', 'quality': 95, 'subsampling': 0}
                reduced(image).save(file, **options)
    package.unlink()


def main():
    args = parse_args()
    folder = args.root / 'photos2k'
    for part in 'train_HR', 'valid_HR':
        (folder / part).mkdir(parents=True, exist_ok=True)
    for package, photos in read_list().items():
        absent = {path: target for path, target in photos.items() if not (folder / target).exists()}
        if absent:
            name, sha256 = PACKAGES[package]
            add_photos(f'{args.mirror}/{name}', sha256, absent, folder)
    for part in 'train_HR', 'valid_HR':
        print(f'{folder / part}: {count(folder / part)} images')


if __name__ == '__main__':
    run_cli(main)
