"""Measures a model's PSNR and SSIM on the datasets of test configs.

    python test.py --config configs/test/test-set5-2.yaml --model save/_train_edsr-baseline-A-liif/epoch-last.pth
    python test.py --config configs/test/test-set5-*.yaml --model bicubic --gpu cpu --json set5.json

One config prints `result: PSNR`, several a table. `--model bicubic` measures bicubic interpolation itself.
"""

import argparse
import math

from cli import add_import_option, run_cli


def scale_or_none(text: str) -> float | None:
    """A scale of at least 1, or None for 'none'."""
    if text in ('own', 'none'):
        return text if text == 'own' else None
    scale = float(text)
    if not 1 <= scale < math.inf:
        raise argparse.ArgumentTypeError(f'must be at least 1, or none, not {text}')
    return scale


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', required=True, help='test configs')
    parser.add_argument('--model', required=True, help="a checkpoint, a name in pretrained/, or 'bicubic'")
    parser.add_argument('--gpu', default='0', help="index of the GPU, or 'cpu'")
    parser.add_argument('--save-dir', help='writes the predictions here, a folder for each config')
    parser.add_argument('--json', help="writes the numbers here, each image's too")
    parser.add_argument('--report', help='writes a page with tables, charts and pictures to this folder')
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision (default: float32)')
    parser.add_argument('--lr', choices=['pillow', 'matlab', 'supplied'], default='pillow',
                        help="where low resolution comes from: reduced here, by Pillow or as by MATLAB's imresize, or "
                             'files that came with the set (x2, x3, x4)')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='in place of a key of each config, as eval_type=div2k-4; repeatable')
    parser.add_argument('--self-ensemble', action='store_true', help='the mean over 8 flips and transposes (EDSR+)')
    parser.add_argument('--tile', type=int, metavar='N',
                        help='SwinIR sees images in tiles of N pixels, a multiple of 8: less memory, approximate')
    parser.add_argument('--max-cell-scale', type=scale_or_none, default='own', metavar='SCALE',
                        help="at larger scales the model sees this one's cell; none: no bound "
                             "(default: the model's own, 4 for LTE and LM-LIIF, none for LIIF and A-LIIF)")
    add_import_option(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from measure import measure  # PyTorch takes seconds to import: --help does not wait for it
    measure(args)


if __name__ == '__main__':
    run_cli(main)
