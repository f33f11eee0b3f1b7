"""Folders of images, single or in pairs (LR and HR), read as 8-bit RGB or in the ways of `datasets.arrays`."""

import json
from pathlib import Path
from typing import Literal

from torch.utils.data import Dataset

from config import check_positive
from datasets.arrays import RGB, Channels, Reader
from datasets.cache import in_parallel, make_bins, open_bin, read_shared
from datasets.image_file import SUFFIXES, why_not
from datasets.pairs import pair_key, partners
from datasets.registry import register
from errors import UserError
from utils import note


def left_out(path: Path, reader: Reader = RGB) -> str | None:
    """Why `path`, in a folder of images, is not an image that `reader` reads; None if it is one."""
    if path.name.startswith('.'):  # macOS leaves ._0001.png in its archives
        return 'hidden'
    if path.is_dir():
        return 'a folder; only one level is searched'
    if not path.is_file():
        return 'not a file, or a broken link'
    if path.suffix.lower() == '.npy':
        return 'an array: channels: all reads it' if reader.channels == 'rgb' else None
    if path.suffix.lower() not in SUFFIXES:
        return why_not(path) or 'not the suffix of an image'
    return None


def list_images(root: Path, reader: Reader = RGB) -> list[Path]:
    """The image files in the folder `root`, sorted; prints the names of other files, with the reasons."""
    if not root.is_dir():
        raise UserError(f'{root}: no such folder; put or link the images there, or correct root_path')
    images, others = [], {}
    try:
        for path in sorted(root.iterdir()):
            reason = left_out(path, reader)
            (others.setdefault(reason, []) if reason else images).append(path)
    except OSError as error:
        raise UserError(f'{root}: cannot be read ({error.strerror})') from None
    for reason, paths in others.items():
        note(f'{root}: left out: {", ".join(path.name for path in paths)} ({reason})')
    if not images:
        raise UserError(f'{root}: holds no images (.png, .jpg, .webp, .tif, ...); put or link them there')
    return sorted(images, key=lambda p: (pair_key(p), p.name))  # 1x2.png, 10x2.png in the order of 1.png, 10.png


def read_split(split_file: str, split_key: str | None) -> list[str]:
    """The file names that the JSON file `split_file` lists under `split_key`."""
    try:
        split = json.loads(Path(split_file).read_text(encoding='utf-8'))
        names = split[split_key]
    except OSError as error:
        raise UserError(f'split_file {split_file}: cannot be read ({error.strerror})') from None
    except ValueError as error:
        raise UserError(f'split_file {split_file}: is not valid JSON ({error})') from None
    except (KeyError, TypeError):
        known = ', '.join(split) if isinstance(split, dict) else 'none'
        raise UserError(f'split_file {split_file}: no split_key {split_key!r} (known: {known})') from None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise UserError(f'split_file {split_file}: {split_key!r} must hold a list of file names')
    return names


def root_folders(root_path: str | list) -> list[Path]:
    """The folders that a `root_path` names."""
    roots = root_path if isinstance(root_path, list) else [root_path]
    if not roots or not all(isinstance(root, str) for root in roots):
        raise UserError(f'root_path must be a folder or a list of folders, not {root_path!r}')
    return [Path(root) for root in roots]


def find_images(root_path: str | list, split_file: str | None = None, split_key: str | None = None,
                first_k: int | None = None, reader: Reader = RGB) -> list[Path]:
    """The paths of the images in one or several folders: all, or those of a split; of these the first `first_k`."""
    roots = root_folders(root_path)
    if split_file is None:
        return [path for root in roots for path in list_images(root, reader)][:first_k]
    paths = []
    for name in read_split(split_file, split_key)[:first_k]:
        found = [root / name for root in roots if (root / name).is_file()]
        if not found:
            raise UserError(f'{name}: is in split_file {split_file}, but not in {" or ".join(map(str, roots))}')
        paths.append(found[0])
    return paths


def take_part(paths: list[Path], part: str | None) -> list[Path]:
    """A `part` of `paths`: 'valid' is every tenth, or the last of fewer; 'train' is the rest; None is all."""
    if part is None:
        return paths
    if len(paths) < 2:
        raise UserError(f'part: {part} needs at least 2 images, for training and validation, not {len(paths)}')
    valid = paths[9::10] or paths[-1:]
    held = {*valid}
    return valid if part == 'valid' else [path for path in paths if path not in held]


def find_pairs(root_path_1: str | list, root_path_2: str | list, split_file: str | None = None,
               split_key: str | None = None, reader: Reader = RGB) -> list[tuple[Path, Path]]:
    """The pairs (LR, HR) of images in two folders or lists of folders: those of a split, or all.

    UserError if an image of the split, or without a split any image, has no partner.
    """
    lr_roots, hr_roots = root_folders(root_path_1), root_folders(root_path_2)
    names = None if split_file is None else read_split(split_file, split_key)
    inner = dict.fromkeys(Path(name).parent for name in names or ['.'])  # a split may name files in subfolders
    files = [[list_images(root / folder, reader) for folder in inner for root in roots]
             for roots in (lr_roots, hr_roots)]
    if len(lr_roots) != len(hr_roots):
        files = [[sum(lists, [])] for lists in files]
    pairs = [pair for lists in zip(*files, strict=True) for pair in partners(*lists)]
    if names is None:
        check_partners(root_path_1, root_path_2, *(sum(lists, []) for lists in files), pairs)
        return pairs
    known = {path: pair for pair in pairs for path in pair}
    found = [next((known[root / name] for root in hr_roots + lr_roots if root / name in known), None) for name in names]
    if None in found:
        raise UserError(f'{names[found.index(None)]}: is in split_file {split_file}, but no pair of images in '
                        f'{root_path_1} and {root_path_2} has that name')
    return found


def check_partners(root_path_1: str | list, root_path_2: str | list, lr: list[Path], hr: list[Path],
                   pairs: list[tuple[Path, Path]]) -> None:
    """Raises a UserError if a file of `lr` or `hr`, the images in two folders, is in none of the `pairs`."""
    lone = [[path for path in files if path not in paired] for files, paired in
            zip((lr, hr), map(set, zip(*pairs, strict=True)) if pairs else (set(), set()), strict=True)]
    if len(lr) != len(hr):
        raise UserError(f'{root_path_1} has {len(lr)} images, but {root_path_2} has {len(hr)}; each needs a partner, '
                        f'and {(lone[0] or lone[1])[0]} has none')
    if any(lone):
        raise UserError(f"{lone[0][0]} and {lone[1][0]}: names of a pair must agree, except LR's trailing x2, x3, ...")


class Images(Dataset):
    """The images in `files`, as `ImageFolder` gives them."""

    def __init__(self, files: list[Path], repeat: int, cache: str, reader: Reader):
        self.files, self.repeat, self.cache, self.reader = files, repeat, cache, reader
        if cache == 'bin':
            self.images = make_bins(self.files, reader)
        elif cache == 'in_memory':
            self.images = in_parallel(lambda path: read_shared(path, reader), self.files, 'decoding into memory')
        else:
            self.images = self.files

    def __len__(self):
        return len(self.files) * self.repeat

    def __getitem__(self, i):
        image = self.images[range(len(self))[i] % len(self.files)]  # IndexError past the end: it ends for loops
        if self.cache == 'in_memory':
            image = image.numpy()
            image.flags.writeable = False
            return image
        return open_bin(image) if self.cache == 'bin' else self.reader.read(image)

    def size(self, i: int) -> tuple[int, int]:
        """(H, W) of the image in `files[i]`; only its header is read."""
        return self.reader.size(self.files[i]) if self.cache == 'none' else self[i].shape[:2]

    def keep(self, indices: list[int]) -> None:
        """Keeps only the `files` at these indices."""
        self.files, self.images = [self.files[i] for i in indices], [self.images[i] for i in indices]


@register('image-folder')
class ImageFolder(Images):
    """The images of a folder, uint8 arrays (H, W, 3) unless `channels` asks for others, each `repeat` times.

    Args:
        root_path: a folder or a list of folders. Subfolders, and files without the suffix of an image, are left out,
            and their names are printed.
        split_file, split_key: a JSON file, and the key of the list of file names in it to use.
        part: 'train' or 'valid', if one folder holds the images for both: every tenth is for validation.
        first_k: use only the first k images.
        cache: 'none' decodes an image each time it is used; 'in_memory' holds all images (RGB: 3 bytes per pixel);
            'bin' keeps decoded copies on disk, in `_bin_FOLDER` beside the folder, and maps them into memory.
        channels: 'rgb' reads pictures as 8-bit RGB. 'grey' gives one channel and 'all' all channels of the file, in
            its own type: uint8, uint16 or float32; both read .npy files of (H, W) or (H, W, C), too.
        data_range: the value of white; default: 255 for uint8, 65535 for uint16, 1 for float32. Black is 0.
        shown: one or three channels to show in pictures, counted from 0; default: the first three, or the first.
    Raises UserError for what cannot be found or read; with cache 'none', damaged images are only found when used.
    """

    def __init__(self, root_path: str | list, split_file: str | None = None, split_key: str | None = None,
                 first_k: int | None = None, repeat: int = 1, cache: Literal['none', 'bin', 'in_memory'] = 'none',
                 part: Literal['train', 'valid'] | None = None, channels: Channels = 'rgb',
                 data_range: float | None = None, shown: list[int] | None = None):
        check_positive(first_k=first_k, repeat=repeat)
        self.shown, reader = shown, Reader(channels, data_range)
        super().__init__(take_part(find_images(root_path, split_file, split_key, first_k, reader), part), repeat, cache,
                         reader)


@register('paired-image-folders')
class PairedImageFolders(Dataset):
    """Pairs (LR, HR) of images in two folders whose names agree, apart from the suffix and LR's trailing x2, x3, ...

    Arguments and errors are those of `ImageFolder`, for `root_path_1` (LR) and `root_path_2` (HR); a split may name the
    files of either. Two lists of folders that are equally long are paired folder by folder.
    """

    paired = True

    def __init__(self, root_path_1: str | list, root_path_2: str | list, split_file: str | None = None,
                 split_key: str | None = None, first_k: int | None = None, repeat: int = 1,
                 cache: Literal['none', 'bin', 'in_memory'] = 'none', part: Literal['train', 'valid'] | None = None,
                 channels: Channels = 'rgb', data_range: float | None = None, shown: list[int] | None = None):
        check_positive(first_k=first_k, repeat=repeat)
        self.shown, reader = shown, Reader(channels, data_range)
        pairs = take_part(find_pairs(root_path_1, root_path_2, split_file, split_key, reader)[:first_k], part)
        self.files = [f'{lr} and {hr}' for lr, hr in pairs]
        self.folders = [Images(list(files), repeat, cache, reader) for files in zip(*pairs, strict=True)]

    def __len__(self):
        return len(self.folders[0])

    def __getitem__(self, i):
        return tuple(folder[i] for folder in self.folders)

    def size(self, i: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """((h, w), (H, W)) of the pair in `files[i]`; only the headers are read."""
        return tuple(folder.size(i) for folder in self.folders)
