"""Downloads that resume where they stopped, and announce their size first."""

import http.client
import os
import shutil
import ssl
import sys
import time
import urllib.error
import urllib.request

from tqdm import tqdm

from errors import UserError
from files import writing

WAITS = (0, 1, 2, 4, 8)  # seconds before the next try, by the number of tries in a row without a new byte
BROKEN = (urllib.error.URLError, http.client.HTTPException, ssl.SSLError, ConnectionError, TimeoutError, ValueError)


def size_of(url):
    """The size of the file at `url` in bytes, or None if the server does not tell; raises one of BROKEN on failure."""
    with urllib.request.urlopen(urllib.request.Request(url, method='HEAD'), timeout=60) as response:
        length = response.headers.get('Content-Length')
        return int(length) if length else None


def by_hand(page, archives, root):
    """What to do if the `archives` of `page` cannot be downloaded from here."""
    return f'with another computer, download {", ".join(archives)} from {page}, put them into {root}'


def announce(page, archives, root):
    """Prints the sizes of the `archives` of `page`; UserError if they do not fit on the disk of the folder `root`."""
    sizes = {}
    for archive in archives:
        try:
            sizes[archive] = size_of(f'{page}/{archive}')
        except urllib.error.HTTPError:  # if the file is missing, the download reports it; maybe only HEAD is refused
            continue
        except BROKEN as error:
            raise UserError(f'{page}/{archive}: cannot be downloaded ({error}); is there a network? Give another page '
                            f'with --mirror, or, {by_hand(page, archives, root)}, and run this again') from None
        if sizes[archive] is not None:
            print(f'{archive}: {sizes[archive] / 1e9:.2f} GB to download')
    # for a while the largest archive exists twice, packed and unpacked
    known = [size for size in sizes.values() if size is not None]
    need, free = sum(known) + max(known, default=0), shutil.disk_usage(root).free
    if need > free:
        raise UserError(f'{root}: needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free; give another disk with '
                        '--root')


def fetch(url, part):
    """Tries once to complete the file `part` from `url`; ConnectionError if the transfer ends too early."""
    part.touch()
    # The last byte is requested again, because servers refuse an empty range after a complete file.
    start = max(part.stat().st_size - 1, 0)
    request = urllib.request.Request(url, headers={'Range': f'bytes={start}-'})
    with urllib.request.urlopen(request, timeout=60) as response, open(part, 'r+b') as file:
        if not response.headers.get('Content-Range', '').startswith(f'bytes {start}-'):
            start = 0  # the server does not support ranges and sends everything again
        length = response.headers.get('Content-Length')
        total = start + int(length) if length else None
        file.truncate(start)
        file.seek(start)
        with tqdm(desc=part.stem, initial=start, total=total, unit='B', unit_scale=True, unit_divisor=1024) as bar:
            while chunk := response.read(1 << 20):
                with writing(part):
                    bar.update(file.write(chunk))
        if total is not None and file.tell() < total:
            raise ConnectionError(f'it ended after {file.tell()} of {total} bytes')


def download(url, path):
    """Downloads `url` to `path`, and tries again as long as new bytes arrive."""
    part = path.with_name(f'{path.name}.part')
    most = failures = 0
    while not path.exists():
        try:
            fetch(url, part)
            os.replace(part, path)
        except BROKEN as error:
            size = part.stat().st_size
            most, failures = max(most, size), 0 if size > most else failures + 1
            hopeless = isinstance(error, ValueError) or getattr(error, 'code', 500) < 500  # not a URL, or not found
            if hopeless or failures == len(WAITS):
                page, name = url.rsplit('/', 1)
                raise UserError(f'{url}: cannot be downloaded ({error}); run this again to continue {part}, remove '
                                'it to start anew, give another page with --mirror, or, '
                                f'{by_hand(page, [name], path.parent)}, and run this again') from None
            print(f'{url}: {error}; trying again', file=sys.stderr)
            time.sleep(WAITS[failures])
