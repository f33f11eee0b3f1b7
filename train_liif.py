"""Trains a model on pairs of low and high resolution at random scales.

One GPU, or the CPU where there is none:
    python train_liif.py --config configs/train-div2k/train_edsr-baseline-A-liif.yaml
Several GPUs of one machine, in one process (nn.DataParallel):
    python train_liif.py --config ... --gpu 0,1
A process for each GPU (DistributedDataParallel), faster; the results do not depend on their number:
    torchrun --nproc_per_node=4 train_liif.py --config ...
    torchrun --nnodes=2 --node_rank=0 --master_addr=10.0.0.1 --nproc_per_node=8 train_liif.py --config ...
Interrupted, preempted or killed: the same command with --resume.

A run writes save/_CONFIG_NAME/ (see --name, --tag): config.yaml, log.txt, tensorboard/ and epoch-{last,best,N}.pth.
"""

import argparse

from cli import add_import_option, run_cli


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', required=True)
    parser.add_argument('--name', help='folder in save/ (default: _CONFIG_NAME)')
    parser.add_argument('--tag', help="appended to the folder's name")
    parser.add_argument('--gpu', default='0', help="index, or several as 0,1 (DataParallel), or 'cpu'")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument('--resume', action='store_true', help="continue the folder's run, if it holds one")
    existing.add_argument('--overwrite', action='store_true', help="replace the folder's run")
    parser.add_argument('--minutes', type=float, help='train for so long, whatever the speed: the schedule follows the '
                        'time; not repeatable to the bit')
    parser.add_argument('--set', action='append', default=[], metavar='KEY=VALUE',
                        help='in place of a key of the config, as optimizer.args.lr=1e-5; repeatable')
    parser.add_argument('--seed', type=int, help="in place of the config's")
    parser.add_argument('--amp', choices=['bf16'], help='mixed precision')
    parser.add_argument('--tf32', action='store_true', default=None, help='TF32 in products and convolutions on GPUs')
    parser.add_argument('--channels-last', action='store_true', default=None, help='memory format of the encoder')
    parser.add_argument('--compile', action='store_true', default=None, help='torch.compile')
    add_import_option(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from models.trainer import run_training  # PyTorch takes seconds to import: --help does not wait for it
    run_training(args)


if __name__ == '__main__':
    run_cli(main)
