"""From the options of demo.py to its files: reads, upscales and saves each picture, and makes its sheets."""

import argparse
import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator
from itertools import chain, islice
from pathlib import Path

import torch
from tqdm import tqdm

from cli import DEFAULT
from datasets.image_file import image_size
from demos.compare import compare, weights_map
from demos.jobs import Job, beside, check_targets, find_jobs
from demos.jpeg import suggest_web
from devices import pick_device, picture_precision
from errors import UserError, located, size_text
from files import make_place
from models.decoder import Decoder
from models.pictures import target_size, upscale_pil
from models.predict import set_tile
from models.pretrained import load_pretrained
from pictures.frames import count_frames, keeps_frames, read_frames, save_frames
from pictures.io import check_fits, check_room, format_name, read, save, written_mode
from pictures.video import check_video, check_video_fits, describe, is_video, upscale_video
from utils import note, time_text


def open_model(args: argparse.Namespace) -> Decoder:
    """The model that demo.py's options name, or DEFAULT if they name none, on the device of the options."""
    args.model = args.model or DEFAULT
    device = pick_device(args.gpu)
    model = load_pretrained(args.model).to(device)
    if args.tile is not None:
        set_tile(model, args.tile)
    return model


def upscale_all(args: argparse.Namespace) -> None:
    """Does what demo.py's options say, except --zoom."""
    target_size((1, 1), args.scale, args.resolution)  # what is wrong for all pictures is reported once
    jobs = find_jobs(args.input, args.output or beside(args.input, size_ending(args)), args.compare, args.weights_map)
    check_targets(jobs)
    if not args.model:
        suggest_web(job.source for job in jobs)
    model = open_model(args)
    if args.weights_map and getattr(model, 'expansion', None) is None:
        raise UserError(f'--weights-map: {args.model} does not mix functions; use an A-LIIF with an expansion net')

    failures, skipped = [], 0
    for job in tqdm(jobs, unit='image', disable=None if len(jobs) > 1 else True):
        try:
            with enough_memory(job.source):
                skipped += not process(job, model, args)
        except UserError as error:
            if not args.input.is_dir():
                raise
            failures.append(error)
    if skipped:
        note(f'{skipped} of {len(jobs)} pictures exist already and were skipped (--overwrite makes them again)')
    if failures:
        print(*(f'error: {error}' for error in failures), sep='\n', file=sys.stderr)
        raise UserError(f'{len(failures)} of {len(jobs)} pictures failed, as listed above')
    print(f'next: {next_step(jobs, args)}')


@contextlib.contextmanager
def enough_memory(path: Path) -> Iterator[None]:
    """Turns the exceptions of Python and PyTorch for a full memory into a UserError that names `path`."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(f'{path}: takes more memory than the GPU has; choose a smaller size, or --gpu cpu') from None
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and 'DefaultCPUAllocator' not in str(error):
            raise
        raise UserError(f'{path}: takes more memory than there is') from None


def size_ending(args: argparse.Namespace) -> str:
    """The ending for the name of a result: -x4, -1920x1080 (width x height), or -1920 (longer side)."""
    if isinstance(args.resolution, tuple):
        return f'-{size_text(args.resolution)}'
    return f'-{args.resolution}' if args.resolution else f'-x{args.scale:g}'


def next_step(jobs: list[Job], args: argparse.Namespace) -> str:
    """What to do after `jobs`."""
    if is_video(args.input):
        return f'look at {jobs[0].target}'
    if jobs[0].comparison:
        return f'look at {jobs[0].comparison}: bicubic interpolation and the model side by side'
    shown = jobs[0].target.parent if args.input.is_dir() else jobs[0].target
    again = '' if args.input.is_dir() else ' --overwrite'
    return f'look at {shown}; the same command with --compare{again} adds a comparison with bicubic interpolation'


def asked_size(path: Path, args: argparse.Namespace) -> tuple[int, int]:
    """(H, W) of the result for the picture `path`, from its header: EXIF orientation may still swap them."""
    if isinstance(args.resolution, tuple):
        return args.resolution
    shape = image_size(path)
    with located(path):
        return target_size(shape, args.scale, args.resolution)


def find_done(job: Job, args: argparse.Namespace) -> list[Path]:
    """The files of `job` that exist and are kept: for pictures of a folder, if they have the requested size."""
    there = [path for path in job.written() if path.exists() and not args.overwrite]
    if not there:
        return []
    if not args.input.is_dir() or job.target not in there:
        raise UserError(f'{there[0]}: exists already; --overwrite replaces it')
    size, asked = image_size(job.target), asked_size(job.source, args)
    swapped = () if isinstance(args.resolution, tuple) else asked[::-1]  # by the orientation in the EXIF data
    if size not in (asked, swapped):
        raise UserError(f'{job.target}: exists already, with {size_text(size)} pixels; --overwrite replaces it')
    if job.source.stat().st_mtime > job.target.stat().st_mtime:
        raise UserError(f'{job.target}: exists already, but is older than {job.source}; --overwrite replaces it')
    return there


def tell_stretch(path: Path, shape: tuple[int, int], size: tuple[int, int]) -> None:
    """Prints a note if `size` (H, W) misses the aspect ratio of the picture `path`, (h, w), by a pixel or more."""
    (h, w), (height, width) = shape, size
    if abs(width - w * height / h) >= 1 and abs(height - h * width / w) >= 1:
        wider = width * h / (height * w)
        how = f'{wider:.3g} times as wide' if wider > 1 else f'{1 / wider:.3g} times as high'
        note(f'{path}: the aspect ratio of {size_text(size)} is not that of {size_text(shape)}: everything becomes '
             f'{how}')


def enlarger(model: Decoder, args: argparse.Namespace, eight_bits: bool) -> Callable:
    """A function that enlarges a `plain` picture to a size (H, W); `eight_bits`: whether only 8 bits are kept."""
    def enlarge(picture, size):
        with picture_precision(next(model.parameters()).device, eight_bits and not args.float32):
            return upscale_pil(model, picture, size=size, verbose=True, self_ensemble=args.self_ensemble)
    return enlarge


def ensemble_bytes(args: argparse.Namespace) -> int:
    """Bytes per pixel that --self-ensemble needs in memory: it holds the result three times in float32."""
    return 36 * bool(args.self_ensemble)


def process_video(job: Job, model: Decoder, args: argparse.Namespace) -> bool:
    """Like `process`, for a video."""
    check_video(job.target)
    if args.compare or args.weights_map:
        raise UserError('--compare and --weights-map are for pictures, not for videos')
    start, video = time.monotonic(), describe(job.source)
    if args.resolution is not None:  # it is meant on the screen, where pixels are square
        video = video.squared()
    elif video.pixel != 1:
        note(f'{job.source}: its pixels are not square ({video.pixel.numerator}:{video.pixel.denominator}), nor are '
             'those of the result (--resolution makes them square)')
    with located(job.source):
        size = target_size(video.shape, args.scale, args.resolution)
    tell_stretch(job.source, video.shape, size)
    size = tuple(n + n % 2 for n in size)  # H.264 halves the resolution of colour
    check_video_fits(job.target, size, extra=ensemble_bytes(args))
    make_place(job.target)
    upscale_video(job.source, video, job.target, size, enlarger(model, args, eight_bits=True))
    tqdm.write(f'{job.target}: {size_text(size)} ({time_text(time.monotonic() - start)})')
    return True


def process(job: Job, model: Decoder, args: argparse.Namespace) -> bool:
    """Does `job` unless it is done, and reports it; checks what it can first. Returns whether there was work."""
    done, start = find_done(job, args), time.monotonic()
    if len(done) == len(job.written()):
        return False
    if is_video(job.source):
        return process_video(job, model, args)
    # before the picture is decoded
    check_room(job.target, math.prod(asked_size(job.source, args)), 'L', extra=ensemble_bytes(args))
    count = count_frames(job.source)
    several = count > 1 and keeps_frames(job.source, job.target)
    if count > 1 and not several:
        note('only the first of several frames or pages is read (.tif holds them all; .gif, .webp, .png and .avif hold '
             'frames)')
    image = read(job.source)
    shape = image.height, image.width
    with located(job.source):
        size = target_size(shape, args.scale, args.resolution)
    make_place(job.target)
    check_fits(job.target, size, image.mode)
    if several and format_name(job.target) != 'TIFF':  # all frames of an animation are held in memory
        check_room(job.target, count * math.prod(size), image.mode)
    tell_stretch(job.source, shape, size)

    enlarge = enlarger(model, args, ';16' not in written_mode(format_name(job.target), image.mode))
    big = enlarge(image, size)
    if job.target not in done and several:
        rest = (enlarge(frame, target_size((frame.height, frame.width), args.scale, args.resolution))
                for frame in islice(read_frames(job.source), 1, None))
        save_frames(chain([big], rest), job.source, job.target)
    elif job.target not in done:
        save(big, job.target)
    if job.comparison and job.comparison not in done:
        save(compare(image, big, Path(args.model).stem), job.comparison)
    if job.weights and job.weights not in done:
        save(weights_map(model, image, size), job.weights)
    tqdm.write(f'{job.target}: {size_text(size)} ({time_text(time.monotonic() - start)})')
    return True
