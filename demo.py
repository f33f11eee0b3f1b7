"""Upscales pictures by any factor, or to any size.

    python demo.py photo.jpg                                  x4, to photo-x4.png beside it
    python demo.py photo.jpg --scale 3.7 --output big.png
    python demo.py photos/ --resolution 3840 --output big/    the longer side; or 3840x2160 (width x height)
    python demo.py photo.jpg --compare --weights-map
    python demo.py video.mp4 --scale 2                        frame by frame, with its sound
    python demo.py photo.jpg --zoom zoom.mp4 --at 620,410     a film that zooms into a point; or zoom.webp, zoom.gif

Reads JPEG, PNG, WebP, TIFF, AVIF, GIF, BMP and more, and HEIF if pillow-heif is installed; writes PNG, JPEG, WebP,
AVIF, GIF, BMP and TIFF, with all frames or pages if the format can hold them. `--compare` adds big-compare.png,
bicubic interpolation and the model side by side; `--weights-map` adds big-weights.png, which shows how A-LIIF mixes its
functions. In a folder, pictures that are done already are skipped.
"""

import argparse
import re
from pathlib import Path

from cli import add_gpu_option, add_import_option, add_model_option, run_cli
from errors import UserError


def not_empty(text: str) -> str:
    if not text:
        raise UserError('a path is empty; is a variable unset?')
    return text


def path_from(text: str) -> Path:
    return Path(not_empty(text))


def scale_from(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f'--scale must be a number, not {text!r}') from None


def size_from(text: str) -> tuple[int, int] | int:
    """(H, W) from HEIGHT,WIDTH or WIDTHxHEIGHT, or the longer side from a single number."""
    match = re.fullmatch(r'(?P<h>\d+),(?P<w>\d+)|(?P<W>\d+)x(?P<H>\d+)|(?P<side>\d+)', text)
    if not match:
        raise UserError('--resolution must be HEIGHT,WIDTH or WIDTHxHEIGHT, or one number for the longer side, in '
                        f'pixels, not {text!r}')
    if max(map(len, filter(None, match.groups()))) > 9:  # more than any format holds
        raise UserError(f'--resolution: sides have at most 9 digits, not those of {text[:20]}...')
    if match['side']:
        return int(match['side'])
    return int(match['h'] or match['H']), int(match['w'] or match['W'])


def point_from(text: str) -> tuple[float, float]:
    """(x, y) from X,Y."""
    try:
        x, y = map(float, text.split(','))
    except ValueError:
        raise UserError(f'--at must be X,Y in pixels of the picture, not {text!r}') from None
    return x, y


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument('picture', nargs='?', type=path_from, help='a picture, a folder of them, or a video')
    source.add_argument('--input', type=path_from, help="the same, by the name that LIIF's demo uses")
    made = parser.add_mutually_exclusive_group()
    made.add_argument('--output', type=not_empty, help='the file to write, or a folder (a new one ends in /); by '
                                                       'default the result is put beside the picture, as photo-x4.png')
    made.add_argument('--zoom', type=path_from, metavar='FILM',
                      help='write a film that zooms into the picture, to x30, instead: .mp4, .webp, .gif and more')
    parser.add_argument('--at', type=point_from, metavar='X,Y',
                        help='the point that --zoom zooms into, in pixels of the picture (default: most detail)')
    target = parser.add_mutually_exclusive_group()
    target.add_argument('--scale', type=scale_from, help='at least 1, such as 3.7 (default: 4)')
    target.add_argument('--resolution', type=size_from, metavar='SIZE',
                        help='HEIGHT,WIDTH or WIDTHxHEIGHT (another aspect ratio stretches the picture), or one number '
                             'for the longer side (default for --zoom: 1280 for videos, 640 for animations)')
    add_model_option(parser)
    parser.set_defaults(model=None)  # nobody has chosen: DEFAULT is used, and WEB suggested where it suits better
    add_gpu_option(parser)
    parser.add_argument('--float32', action='store_true',
                        help='do not use bf16, in which 8-bit results are computed if the GPU or CPU supports it')
    parser.add_argument('--tile', type=int, metavar='N',
                        help='run SwinIR on tiles of N pixels, a multiple of 8: less memory, approximate')
    parser.add_argument('--self-ensemble', action='store_true',
                        help='average over 8 flips and transposes: slightly better, eight times the work')
    parser.add_argument('--compare', action='store_true', help='add OUTPUT-compare.png')
    parser.add_argument('--weights-map', action='store_true',
                        help='add OUTPUT-weights.png (blue: weights below their mean, red: above)')
    parser.add_argument('--overwrite', action='store_true',
                        help='replace existing files (without it, those of a folder are skipped)')
    add_import_option(parser)
    args = parser.parse_args()
    args.input = args.input or args.picture
    if not args.zoom and args.resolution is None and args.scale is None:
        args.scale = 4.0
    if args.at and not args.zoom:
        raise UserError('--at is the point that --zoom zooms into, but there is no --zoom')
    return args


def main() -> None:
    args = parse_args()
    # imported here so that --help does not wait for PyTorch, which takes seconds
    if args.zoom:
        from demos.zoom import zoom
        zoom(args)
    else:
        from demos.upscaling import upscale_all
        upscale_all(args)


if __name__ == '__main__':
    run_cli(main)
