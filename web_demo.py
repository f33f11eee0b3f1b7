"""A page to upscale photos in a browser, on this machine: nothing is sent elsewhere.

    pip install -r requirements-web.txt
    python web_demo.py --port 7860

Upload a photo, choose a scale or a size, compare with bicubic interpolation using the slider (the wheel zooms), and
download the result as PNG. A CPU is enough. At /explore you can look around in a photo and zoom in as far as you like.
"""

import argparse
import importlib.util

from cli import add_gpu_option, add_import_option, add_model_option, check_environment, run_cli
from errors import UserError


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_option(parser)
    add_gpu_option(parser)
    parser.add_argument('--port', type=int, default=7860, help='default: 7860')
    add_import_option(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not 1 <= args.port <= 65535:
        raise UserError(f'--port must be from 1 to 65535, not {args.port}')
    check_environment()
    if importlib.util.find_spec('gradio') is None:
        raise UserError('Gradio is missing: pip install -r requirements-web.txt')
    from web.upscaling import serve  # PyTorch and Gradio take seconds to import: --help does not wait for them
    serve(args)


if __name__ == '__main__':
    run_cli(main)
