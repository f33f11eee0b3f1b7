"""Decoded copies of images, for `cache: bin`, and images that data workers share, for `cache: in_memory`."""

import contextlib
import os
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from datasets.arrays import Reader
from datasets.image_file import reading
from errors import UserError
from files import atomic_write, file_name, sweep, writing


def bin_path(path: Path, reader: Reader) -> Path:
    """The path of the decoded copy that `reader` makes of an image: in `_bin_FOLDER` beside the image's folder."""
    path = path.absolute()
    return path.parent.with_name(f'_bin_{path.parent.name}') / reader.folder / file_name(path.name, '.npy')


def stamp(path: Path) -> bytes:
    """Bytes that change with the content of `path`: its size, mtime, and ctime, which programs cannot set."""
    state = path.stat()
    return struct.pack('<3q', state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def has_stamp(copy: Path, expected: bytes) -> bool:
    """Whether the decoded copy `copy` exists and ends in the stamp `expected`."""
    with contextlib.suppress(OSError), open(copy, 'rb') as file:
        file.seek(-len(expected), os.SEEK_END)
        return file.read() == expected
    return False


def make_bin(path: Path, reader: Reader) -> Path:
    """The path of an image's decoded copy, an array followed by the image's stamp; makes it if necessary."""
    copy, expected = bin_path(path, reader), stamp(path)
    if not has_stamp(copy, expected):
        image = reader.read(path)
        with writing_bin(), atomic_write(copy) as file:
            np.save(file, image, allow_pickle=False)
            file.write(expected)
    return copy


@contextlib.contextmanager
def writing_bin() -> Iterator[None]:
    """Adds to an error of `writing` what the user can do."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{error}, but cache: bin keeps its files there; make it writable, link the images from '
                        'another folder, or use cache: in_memory') from None


def make_bins(paths: list[Path], reader: Reader) -> list[Path]:
    """The paths of the decoded copies of the images `paths`; removes temporary files of killed processes."""
    for folder in {bin_path(path, reader).parent for path in paths}:
        with writing_bin(), writing(folder):
            folder.mkdir(exist_ok=True, parents=True)
            sweep(folder)
    return in_parallel(lambda path: make_bin(path, reader), paths, 'decoding to _bin_ folders')


def open_bin(path: Path) -> np.ndarray:
    """The decoded copy at `path`, memory-mapped and read-only: only the parts that are used are read."""
    with reading(path):
        return np.load(path, mmap_mode='r', allow_pickle=False)


def read_shared(path: Path, reader: Reader) -> torch.Tensor:
    """An image as a tensor: unlike an array's, its memory is shared by workers that do not fork (macOS, Windows)."""
    return torch.from_numpy(np.array(reader.read(path)))


def in_parallel(function: Callable, paths: list[Path], text: str) -> list:
    """[function(path) for path in paths], on all cores, with a progress bar in a terminal."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(function, paths), text, len(paths), leave=False, disable=None))
