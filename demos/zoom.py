"""A smooth zoom into a point of a picture as a video or an animation, with every frame made by the model."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from tqdm import tqdm

from demos.compare import most_detailed
from demos.jobs import Job, check_targets
from demos.upscaling import enough_memory, find_done, open_model
from devices import picture_precision
from errors import UserError, size_text
from files import make_place
from models.decoder import Decoder
from models.regions import Encoded
from pictures.deep import Deep
from pictures.frames import ANIMATED, Timing, holds_frames, save_animation
from pictures.io import check_fits, check_room, format_name, read
from pictures.sheets import flat
from pictures.video import MUXERS, check_video_fits, is_video, write_video
from utils import note, time_text

DEPTH = 30  # magnification of the last frame relative to the first
SECONDS = 4
HOLD = 1  # seconds for which an animation shows its last frame before it starts again
QUALITY = 80  # of an animation in WebP or AVIF, whose frames are seen only for a moment


class Film(NamedTuple):
    """The format of a film: pixels along its longer side, frames per second, and what its sides are multiples of."""

    side: int
    rate: int
    multiple: int


VIDEO = Film(1280, 30, 2)  # H.264 halves the resolution of colour
ANIMATION = Film(640, 20, 1)


def zoom(args: argparse.Namespace) -> None:
    """Does what demo.py does with --zoom; checks what it can first."""
    start, target = time.monotonic(), args.zoom
    check_options(args)
    film, job = film_for(target), Job(args.input, target)
    image = read(args.input)
    check_targets([job])
    find_done(job, args)
    at = args.at or detailed_point(image)
    if not all(0 <= x <= n for x, n in zip(at, image.size, strict=True)):
        raise UserError(f'--at {at[0]:g},{at[1]:g} is outside {args.input}, {image.width}x{image.height} (width x '
                        'height)')
    size = frame_size((image.height, image.width), args.resolution, film)
    count = SECONDS * film.rate
    if film is VIDEO:
        check_video_fits(target, size)
    else:
        check_fits(target, size, 'RGB')
        check_room(target, count * size[0] * size[1], 'RGB')  # all frames are held in memory
    make_place(target)

    frames = views(open_model(args), image, boxes(image.size, at, count), size, not args.float32)
    with enough_memory(args.input):
        if film is VIDEO:
            write_video(target, frames, size, film.rate)
        else:
            durations = [1000 / film.rate] * (count - 1) + [1000 * HOLD]
            save_animation(frames, Timing(durations, plays=0, alpha=False), target, quality=QUALITY)
    print(f'{target}: {size_text(size)}, {count} frames ({time_text(time.monotonic() - start)})')
    print(f'next: look at {target}')


def check_options(args: argparse.Namespace) -> None:
    """Raises a UserError for inputs and options that --zoom does not support."""
    if not args.input.exists():
        raise UserError(f'{args.input}: no such file')
    if args.input.is_dir() or is_video(args.input):
        raise UserError(f'--zoom: {args.input} must be a picture')
    for option in ('--scale', '--compare', '--weights-map', '--self-ensemble'):
        if getattr(args, option.strip('-').replace('-', '_')):
            raise UserError(f'--zoom cannot be combined with {option}')
    if isinstance(args.resolution, tuple):
        raise UserError('--zoom keeps the aspect ratio of the picture: --resolution must be one number, the longer '
                        'side')


def film_for(target: Path) -> Film:
    """The kind of film that `target` is, by its suffix."""
    if target.suffix.lower() in MUXERS:
        return VIDEO
    if not holds_frames(target) or format_name(target) not in ANIMATED:
        raise UserError(f'--zoom {target}: films cannot be written in this format (known: {", ".join(MUXERS)}, .webp, '
                        '.gif, .png, .avif)')
    return ANIMATION


def frame_size(shape: tuple[int, int], side: int | None, film: Film) -> tuple[int, int]:
    """The size (H, W) of the frames for a picture of `shape` (h, w), with `side` pixels along the longer side.

    `side`: None for the default of `film`.
    """
    side, n = film.side if side is None else side, film.multiple
    if side < n:
        raise UserError(f'--resolution must be at least {n} for this film, not {side}')
    return tuple(n * max(1, round(edge * side / max(shape) / n)) for edge in shape)


def detailed_point(image: Image.Image | Deep) -> tuple[float, float]:
    """The centre (x, y) of the most detailed part of `image`, 1 / DEPTH of its width and height."""
    cells = tuple(min(n, DEPTH) for n in image.size)
    x, y = ((i + 0.5) * n / count
            for i, n, count in zip(most_detailed(image, cells), image.size, cells, strict=True))
    note(f'zooming into {x:.0f},{y:.0f}, where there is most detail (--at chooses another point)')
    return x, y


def boxes(size: tuple[int, int], at: tuple[float, float], count: int) -> list[tuple]:
    """`count` parts (left, top, right, bottom) of a picture of `size` (W, H), from the whole to 1 / DEPTH of its sides.

    Each lies within the previous one and is smaller by a constant factor. One point stays at the same place in all of
    them, so that the motion is smooth. The last part is centred on `at` (x, y), as far as the picture's edges allow.
    """
    last = [min(max(0, x - n / DEPTH / 2), n - n / DEPTH) for x, n in zip(at, size, strict=True)]
    result = []
    for i in range(count):
        factor = DEPTH ** (-i / (count - 1))
        corner = [start * (1 - factor) / (1 - 1 / DEPTH) for start in last]
        result.append((*corner, *(min(n, start + n * factor) for start, n in zip(corner, size, strict=True))))
    return result


def views(model: Decoder, image: Image.Image | Deep, parts: list[tuple], size: tuple[int, int],
          eight_bits: bool) -> Iterator[Image.Image]:
    """Yields the `parts` (left, top, right, bottom) of `image` at `size` (H, W), as RGB, with a progress bar.

    Parts that are wider than `size` are downsampled without the model. `eight_bits`: see `picture_precision`.
    """
    photo, device = Encoded(model, image), next(model.parameters()).device  # its features are shared by all parts
    for box in tqdm(parts, unit='frame', disable=None):
        if box[2] - box[0] > size[1]:
            yield flat(photo.image, size[::-1], box=box)
        else:
            with picture_precision(device, eight_bits):
                view = flat(photo.region(box, size))
            yield view
