"""Files with several frames or pages: GIF, WebP, APNG, AVIF and TIFF, with durations and loops."""

import math
import struct
from collections.abc import Iterator
from itertools import accumulate, pairwise
from pathlib import Path
from typing import NamedTuple

from PIL import Image, TiffImagePlugin

from datasets.image_file import is_tiff, opened
from errors import UserError
from files import atomic_write, writing
from pictures.deep import Deep
from pictures.io import FORMATS, format_name, prepared, tell_losses, write, written_mode, written_suffixes
from pictures.metadata import save_options
from pictures.modes import plain
from utils import note

ANIMATED = 'GIF', 'PNG', 'WEBP', 'AVIF'
SHORTEST = {'GIF': 20}  # shortest duration of a frame in a format, in ms: browsers extend 10 to 100
LONGEST = {'GIF': 655_350, 'WEBP': 2**24 - 1, 'PNG': 65_535_000}  # longest duration of a frame in a format, in ms
MOST_PLAYS = 65535  # the largest number of plays that GIF and WebP can store
REDUCED = 0x00FE  # tag of a TIFF's page, odd if the page is a smaller version of another one


class Timing(NamedTuple):
    """How the frames of an animation are shown.

    durations: of each frame, in ms. plays: how often the animation is played (0: forever). alpha: whether any frame has
    alpha. still: whether the file begins with a picture outside the animation, for programs that cannot show this.
    """

    durations: list[float]
    plays: int
    alpha: bool
    still: bool = False


def indices(image: Image.Image) -> list[int]:
    """The numbers of the frames of `image`, or of a TIFF's pages that are not smaller versions of other pages."""
    if image.format not in (*ANIMATED, 'TIFF'):
        return [0]
    chosen = []
    for i in range(getattr(image, 'n_frames', 1)):
        image.seek(i)
        if image.format != 'TIFF' or i == 0 or not image.tag_v2.get(REDUCED, 0) & 1:
            chosen.append(i)
    image.seek(0)
    return chosen


def count_frames(path: Path) -> int:
    """The number of frames or pages in the file `path`."""
    with opened(path) as image:
        return len(indices(image)) if getattr(image, 'is_animated', False) else 1


def holds_frames(path: Path) -> bool:
    """Whether the format of `path` can be written here and can hold several frames or pages."""
    return path.suffix.lower() in written_suffixes() and format_name(path) in (*ANIMATED, 'TIFF')


def keeps_frames(source: Path, target: Path) -> bool:
    """Whether a result `target` holds all frames or pages of the file `source`; pages do not become an animation."""
    return holds_frames(target) and (format_name(target) == 'TIFF' or not is_tiff(source))


def read_frames(path: Path) -> Iterator[Image.Image | Deep]:
    """Yields the frames or pages of the file `path`, each `plain`."""
    with opened(path) as image:
        for i in indices(image):
            image.seek(i)
            yield plain(image)


def read_timing(path: Path) -> Timing:
    """The `Timing` of the file `path`. Durations that are missing or at most 10 ms become 100 ms, as in browsers."""
    durations, alpha = [], False
    with opened(path) as image:
        still = getattr(image, 'default_image', False)  # only PNGs have this attribute
        plays = image.info.get('loop', 0)
        if image.format == 'GIF':
            plays = 1 if 'loop' not in image.info else plays and plays + 1
        for i in indices(image):
            image.seek(i)
            image.load()
            duration = image.info.get('duration', 0)
            durations.append(duration if duration > 10 else 100)
            alpha = alpha or image.has_transparency_data
    return Timing(durations[still:], plays, alpha, still)


def save_frames(frames: Iterator[Image.Image | Deep], source: Path, path: Path) -> None:
    """Writes `plain` pictures to `path`: a TIFF page by page, or an animation with the timing of the file `source`."""
    if format_name(path) == 'TIFF':
        save_pages(frames, path)
    else:
        save_animation(frames, read_timing(source), path)


def save_pages(frames: Iterator[Image.Image | Deep], path: Path) -> None:
    """Writes the pages of a TIFF. Only the first page keeps the directories of its EXIF data (camera, place)."""
    try:
        with writing(path, ValueError), atomic_write(path) as file, TiffImagePlugin.AppendingTiffWriter(file) as pages:
            for i, frame in enumerate(frames):
                kept = save_options(frame.info, 'TIFF', written_mode('TIFF', frame.mode))
                if i > 0:  # Pillow corrects the file offsets of all tags except those in these directories
                    tags = kept.get('tiffinfo', {}).items()
                    kept['tiffinfo'] = {tag: value for tag, value in tags if not isinstance(value, dict)}
                write(frame, pages, 'TIFF', kept)
                pages.newFrame()
    except struct.error:  # a file offset of more than 32 bits
        raise UserError(f'{path}: TIFF holds up to {2**32 / 1e9:.1f} GB, but the pages together take more; choose a '
                        'smaller size') from None


def loop_option(name: str, plays: int) -> dict:
    """The option of Pillow's `save` for an animation in the format `name` that is played `plays` times (0: forever).

    A GIF stores the number of repetitions after the first play, and stores nothing if there are none. Other formats
    store the number of plays.
    """
    if name == 'AVIF' and plays:
        note('AVIF is written without the number of plays: it repeats forever')
    plays = min(plays, MOST_PLAYS)
    if name == 'GIF':
        return {} if plays == 1 else {'loop': plays and plays - 1}
    return {'loop': plays}


def held_durations(name: str, durations: list[float]) -> list[float]:
    """`durations` (ms) as the format `name` can hold them; what rounding removes from one is added to the next."""
    shortest, longest = SHORTEST.get(name, 0), LONGEST.get(name, math.inf)
    if min(durations) < shortest:
        note(f'{name} shows a frame for {shortest / 1000:g} seconds at least: shorter durations become longer')
    if max(durations) > longest:
        note(f'{name} shows a frame for {longest / 1000:g} seconds at most: longer durations are cut')
    durations = [min(max(duration, shortest), longest) for duration in durations]
    if name == 'PNG':  # the only format that holds fractions of a millisecond
        return durations
    unit = 10 if name == 'GIF' else 1
    times = [unit * math.floor(time / unit + 0.5) for time in accumulate(durations, initial=0)]
    return [end - start for start, end in pairwise(times)]


def save_animation(frames: Iterator[Image.Image | Deep], timing: Timing, path: Path, **options) -> None:
    """Writes an animation; UserError if frames differ in size. `options`: further options for Pillow's `save`."""
    name = format_name(path)
    if timing.still and name == 'PNG':
        options['default_image'] = True
    elif timing.still:
        next(frames)
    first = next(frames)
    mode = written_mode(name, 'RGBA' if timing.alpha else 'RGB')
    durations = held_durations(name, timing.durations)

    def alike(frame):
        if frame.size != first.size:
            raise UserError(f'{path}: frames that differ in size cannot form an animation: choose .tif')
        tell_losses(frame, name, mode)
        return prepared(frame, name, mode)

    if timing.alpha and name in ('GIF', 'PNG'):
        options['disposal'] = 2 if name == 'GIF' else 1  # no frame is visible through the next one
    # Pillow joins equal frames, which may then last too long: OverflowError, or struct.error before Pillow 13
    with writing(path, ValueError, OverflowError, struct.error), atomic_write(path) as file:
        alike(first).save(file, name, save_all=True, append_images=[alike(frame) for frame in frames],
                          duration=durations, **loop_option(name, timing.plays),
                          **{**FORMATS[name].options, **save_options(first.info, name, mode), **options})
