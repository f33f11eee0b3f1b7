"""Reads and writes videos frame by frame, by the ffmpeg of imageio-ffmpeg. Results are 8-bit H.264 with sound."""

import logging
import math
import os
import re
import subprocess
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import imageio_ffmpeg
from PIL import Image
from tqdm import tqdm

from datasets.image_file import VIDEOS
from errors import UserError, one_line, size_text
from files import atomic_write
from pictures.io import check_memory
from pictures.modes import in_srgb
from utils import note

logging.getLogger('imageio_ffmpeg').addHandler(logging.NullHandler())  # it warns of frames that are turned upright

MUXERS = {'.mp4': 'mp4', '.m4v': 'mp4', '.mov': 'mov', '.mkv': 'matroska'}  # by suffix, for writing
USUAL = {'aac', 'mp3', 'ac3', 'eac3', 'alac'}
COPIED = {'.mp4': USUAL | {'opus', 'flac'}, '.m4v': USUAL | {'opus', 'flac'},  # audio codecs that a format can hold
          '.mov': USUAL | {'pcm_s16le', 'pcm_s16be', 'pcm_s24le', 'pcm_s24be'}}
SIDE, PIXELS = 16384, 264e6  # limits of x264 and ffmpeg
ENCODING = 240  # bytes of memory per pixel that x264 takes at least (measured): it looks some 50 frames ahead
QUALITY = '-crf', '16', '-preset', 'medium'
FILTER = ('scale=out_color_matrix=bt709:out_range=tv,setsar={},'
          'setparams=color_primaries=bt709:color_trc=bt709:colorspace=bt709')  # without these, players guess
MATRIX = r'\((?:\w+, )?(?:bt|fcc|smpte|gbr|ycgco|chroma|ictcp|ipt)[^()]*\)'  # in ffmpeg's description of a stream
HDR = r'smpte2084|arib-std-b67'
ALPHA = r'(?:yuva|ya\d|argb|rgba|abgr|bgra|gbrap|ayuv|vuya)'  # how the names of pixel formats with alpha begin
FASTEST = 240  # frames per second; a file that states more was recorded without a rate
SLACK = 0.25  # seconds by which sound is often longer than the frames


class Video(NamedTuple):
    """What a file states about its video; `seconds` is 0 if it is not stated."""

    shape: tuple[int, int]  # (H, W) of a frame
    pixel: Fraction  # width of a pixel, relative to its height
    rate: Fraction  # frames per second
    seconds: float
    log: str = ''  # ffmpeg's description of the streams

    @property
    def sounds(self) -> list[str]:
        """The codecs of all audio tracks."""
        return re.findall(r' Audio: (\w+)', self.log)

    @property
    def untagged_hd(self) -> bool:
        """Whether the file is HD, but names no colour matrix: players then assume BT.709, while ffmpeg assumes BT.601.
        """
        height, width = self.shape
        return (width >= 1280 or height > 576) and not re.search(f' Video: .*{MATRIX}', self.log)  # as mpv does

    def squared(self) -> 'Video':
        """The video as it is seen, with square pixels; no side becomes shorter."""
        height, width = self.shape
        shape = (height, round(width * self.pixel)) if self.pixel > 1 else (round(height / self.pixel), width)
        return self._replace(shape=shape, pixel=Fraction(1))


def is_video(path: Path) -> bool:
    """Whether `path` has the suffix of a video."""
    return path.suffix.lower() in VIDEOS


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


def read_header(path: Path) -> dict:
    """imageio-ffmpeg's description of the video `path`."""
    video = read_video(path)
    try:
        return next(video)
    finally:
        video.close()


def describe(path: Path) -> Video:
    """The `Video` in the file `path`; UserError if there is none, or if its frame rate cannot be found."""
    about = read_header(path)
    rate = exact(about['fps']) if 0 < about['fps'] <= FASTEST else mean_rate(path)
    log = stream_log(path)
    known = re.findall(r' Video: .* \[?SAR ([1-9]\d*):([1-9]\d*) DAR ', log)
    # the last match describes ffmpeg's output, in which frames are upright
    pixel = Fraction(*map(int, known[-1])) if known else Fraction(1)
    return Video(about['size'][::-1], pixel, rate, about['duration'], log.partition('Stream mapping:')[0])


def exact(fps: float) -> Fraction:
    """The exact rate that ffmpeg reports as `fps`, with two decimals: 29.97 is 30000/1001."""
    ntsc = Fraction(1000 * round(fps * 1.001), 1001)
    return ntsc if abs(float(ntsc) - fps) < 0.006 and fps % 1 else Fraction(fps).limit_denominator(100)


def mean_rate(path: Path) -> Fraction:
    """The mean frames per second of a video that does not give its rate, such as one that a browser has recorded."""
    try:
        frames, end = imageio_ffmpeg.count_frames_and_secs(str(path.absolute()))
        # the last frame begins at the end: its duration is unknown, too
        return exact(round(max(frames - 1, 1) / end, 2))
    except (RuntimeError, TypeError, ValueError, ZeroDivisionError):
        raise UserError(f'{path}: its frame rate is unknown; set one first, such as with ffmpeg -i {path.name} -r 30 '
                        f'{path.stem}.mp4') from None


def stream_log(path: Path) -> str:
    """ffmpeg's description of the streams of the video `path`, and then of the streams that it would write."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), '-i', str(path.absolute()), '-an', '-frames:v', '1', '-f', 'null', '-']
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True).stderr.decode(errors='replace')


def write_video(target: Path, frames: Iterable[Image.Image], size: tuple[int, int], rate: Fraction | int,
                pixel: Fraction | int = 1, second: tuple = (), kept: tuple = ()) -> None:
    """Writes `frames`, RGB of an even `size` (H, W), to `target`, which only appears when it is complete.

    `rate`: frames per second. `pixel`: width of a pixel, relative to its height. `second`: ffmpeg's arguments for a
    second input. `kept`: its arguments for what is taken from that input, such as the sound; this follows the video,
    since players expect the video first.
    """
    (height, width), stopped = size, UserError(f'{target}: cannot be written; see the message of ffmpeg above')
    with atomic_write(target) as file:
        command = [imageio_ffmpeg.get_ffmpeg_exe(), '-y', '-v', 'error', '-f', 'rawvideo', '-pix_fmt', 'rgb24',
                   '-s', f'{width}x{height}', '-r', str(Fraction(rate)), '-i', '-', *second, '-map', '0:v', *kept,
                   '-c:v', 'libx264', '-pix_fmt', 'yuv420p', *QUALITY, '-vf', FILTER.format(pixel),
                   '-f', MUXERS[target.suffix.lower()], os.path.abspath(file.name)]
        # a session of its own, so that Ctrl-C does not reach ffmpeg
        count, encoder = 0, subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        try:
            for frame in frames:
                encoder.stdin.write(in_srgb(frame).tobytes())
                count += 1
            encoder.communicate()
        except OSError:  # ffmpeg has stopped
            raise stopped from None
        finally:
            encoder.kill()
            encoder.communicate()
        if encoder.returncode or not count:
            raise stopped


def is_copied(codec: str, target: Path) -> bool:
    """Whether sound of `codec` is copied, because the format of `target` holds it; it is encoded as AAC otherwise."""
    held = COPIED.get(target.suffix.lower())  # None: Matroska, which holds all
    return held is None or codec in held


def sound_options(codecs: list[str], target: Path) -> list[str]:
    """ffmpeg's options for audio tracks of these `codecs` in `target`."""
    codes = ['copy' if is_copied(codec, target) else 'aac' for codec in codecs]
    return [word for i, code in enumerate(codes) for word in (f'-c:a:{i}', code)]


def tell_video_losses(source: Path, video: Video, target: Path) -> None:
    """Prints notes on what the result `target` will lose of the `video` in the file `source`."""
    for codec in video.sounds:
        if not is_copied(codec, target):
            note(f'{source}: its sound, {codec}, is encoded anew as AAC: {target.suffix} does not hold it (.mkv does)')
    if re.search(f' Video: .*, {ALPHA}(?!.*attached pic)|alpha_mode +: 1', video.log):
        note(f'{source}: its transparency is left out: H.264 holds none')
    if ' Subtitle: ' in video.log:
        note(f'{source}: subtitles are left out')
    if re.search(f' Video: .*(?:{HDR})', video.log):
        note(f'{source} is HDR, which is not converted to SDR: colours become pale; convert it first')


def upscale_video(source: Path, video: Video, target: Path, size: tuple[int, int],
                  enlarge: Callable[[Image.Image, tuple[int, int]], Image.Image]) -> None:
    """Writes the `video` in the file `source` to `target`, its frames enlarged to an even `size` (H, W) by `enlarge`.

    Holds one frame at a time in memory. Pixels get the shape `video.pixel`. Prints a note if frames are missing at the
    end.
    """
    tell_video_losses(source, video, target)
    second = '-i', str(source.absolute())
    kept = '-map', '1:a?', '-map_metadata', '1', *sound_options(video.sounds, target)
    matrix = ('-vf', 'scale=in_color_matrix=bt709') if video.untagged_hd else ()
    frames = read_video(source, ('-fps_mode', 'cfr', '-r', str(video.rate), *matrix))
    shape = next(frames)['size']

    def enlarged():
        count = 0
        expected = round(video.seconds * video.rate) or None
        for frame in tqdm(frames, unit='frame', total=expected, disable=None):
            yield enlarge(Image.frombytes('RGB', shape, frame), size)
            count += 1
        end = count / video.rate
        if video.seconds - end > SLACK:
            note(f'{source}: its frames end after {float(end):.1f} of {video.seconds:.1f} seconds; it may be cut off')

    try:
        write_video(target, enlarged(), size, video.rate, video.pixel, second, kept)
    finally:
        frames.close()
