"""Videos, read and written frame by frame by the ffmpeg of imageio-ffmpeg: 8-bit H.264, with the sound copied."""

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
from PIL import Image
from tqdm import tqdm

from errors import UserError, one_line, size_text
from files import atomic_write
from pictures.io import check_memory
from pictures.modes import in_srgb

MUXERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska'}  # by suffix, for writing
SUFFIXES = {*MUXERS, '.webm', '.avi', '.mpg', '.mpeg', '.wmv'}
COPIED = {'.mov': {'aac', 'mp3', 'ac3', 'eac3', 'alac'}}  # audio codecs that a format can hold, by suffix
COPIED['.mp4'] = COPIED['.m4v'] = COPIED['.mov'] | {'opus', 'flac'}
SIDE, PIXELS = 16384, 264e6  # limits of x264 and ffmpeg
ENCODING = 240  # bytes per pixel that x264 takes at least, for some 50 frames that it looks ahead: measured
QUALITY = '-crf', '16', '-preset', 'medium'
COLOURS = ('-vf', 'scale=out_color_matrix=bt709:out_range=tv', '-colorspace', 'bt709', '-color_primaries', 'bt709',
           '-color_trc', 'bt709')  # without these, players guess


def is_video(path: Path) -> bool:
    """Whether `path` has the suffix of a video."""
    return path.suffix.lower() in SUFFIXES


def video_suffix(path: Path) -> str:
    """The default suffix of the result for the video `path`."""
    return path.suffix if path.suffix.lower() in MUXERS else '.mp4'


def check_video(path: Path) -> None:
    """Raises a UserError if videos cannot be written in the format of `path`."""
    if path.suffix.lower() not in MUXERS:
        raise UserError(f'{path}: videos cannot be written in this format (known: {", ".join(MUXERS)})')


def check_video_fits(path: Path, size: tuple[int, int], extra: int = 0) -> None:
    """Raises a UserError if a video with frames of `size` (H, W) is too large for H.264 or the memory.

    `extra`: bytes per pixel of a frame that are needed while it is made.
    """
    if max(size) > SIDE or math.prod(size) > PIXELS:
        raise UserError(f'{path}: videos hold up to {SIDE} pixels a side and {PIXELS / 1e6:.0f} million in all, not '
                        f'{size_text(size)}; choose a smaller size')
    check_memory(path, math.prod(size), ENCODING + 4 + extra)  # Pillow stores RGB in 4 bytes


def read_video(path: Path, options: tuple = ()) -> Iterator:
    """Yields imageio-ffmpeg's description of the video `path` (a dict), then its frames (RGB bytes)."""
    try:
        # absolute, since ffmpeg takes what precedes a colon for a protocol
        yield from imageio_ffmpeg.read_frames(str(path.absolute()), output_params=list(options))
    except (OSError, RuntimeError) as error:
        raise UserError(f'{path}: cannot be read as a video ({one_line(error)[-200:]})') from None


def describe(path: Path) -> dict:
    """imageio-ffmpeg's description of the video `path`: size (W, H), fps, duration in seconds, audio_codec, ..."""
    video = read_video(path)
    try:
        return next(video)
    finally:
        video.close()


def frame_rate(fps: float) -> Fraction:
    """The exact rate that ffmpeg reports as `fps`, with two decimals: 29.97 is 30000/1001."""
    ntsc = Fraction(1000 * round(fps * 1.001), 1001)
    return ntsc if abs(float(ntsc) - fps) < 0.006 and fps % 1 else Fraction(fps).limit_denominator(100)


def write_video(target: Path, frames: Iterable[Image.Image], size: tuple[int, int], rate: Fraction | int,
                **sound: str) -> None:
    """Writes `frames`, RGB of an even `size` (H, W), to `target`, which only appears when it is complete.

    `rate`: frames per second. `sound`: the audio arguments of `imageio_ffmpeg.write_frames`.
    """
    stopped = UserError(f'{target}: cannot be written; ffmpeg says why above')
    with atomic_write(target) as file:
        writer = imageio_ffmpeg.write_frames(
            file.name, size[::-1], fps=rate, codec='libx264', quality=None, macro_block_size=2,
            ffmpeg_log_level='error',
            output_params=[*QUALITY, *COLOURS, '-f', MUXERS[target.suffix.lower()]], **sound)
        writer.send(None)
        try:
            for frame in frames:
                writer.send(in_srgb(frame).tobytes())
        except OSError:
            raise stopped from None
        finally:
            writer.close()
        try:
            describe(Path(file.name))  # fails if ffmpeg, which does not report it, stopped early
        except UserError:
            raise stopped from None


def upscale_video(source: Path, target: Path, size: tuple[int, int],
                  enlarge: Callable[[Image.Image, tuple[int, int]], Image.Image]) -> None:
    """Writes the video `source` to `target`, its frames enlarged to an even `size` (H, W) by `enlarge`.

    Holds one frame at a time in memory.
    """
    about = describe(source)
    rate, sound = frame_rate(about['fps']), about.get('audio_codec', '').rstrip(',')  # 'opus,'
    codec = 'copy' if target.suffix.lower() == '.mkv' or sound in COPIED[target.suffix.lower()] else 'aac'
    frames = read_video(source, ('-fps_mode', 'cfr', '-r', str(rate)))
    next(frames)
    bar = tqdm(frames, unit='frame', total=round(about['duration'] * rate), disable=None)
    enlarged = (enlarge(Image.frombytes('RGB', about['size'], frame), size) for frame in bar)
    try:
        write_video(target, enlarged, size, rate,
                    **({'audio_path': str(source.absolute()), 'audio_codec': codec} if sound else {}))
    finally:
        frames.close()
