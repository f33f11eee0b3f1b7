"""Trains variants of the models with the same small budget and compares them on the validation photos.

    python scripts/ablations.py [--gpu cpu] [--only 'K = 4' softmax]

The budget is that of configs/train-photos/ablation.yaml; each variant changes some of its keys. Each variant is
trained with the seeds 0 and 1, in save/ablations; existing runs are continued. Writes results/ablations.json, and the
table between the markers in docs/results.md: PSNR on the config's validation crops (RGB, x1 to x4), also of bicubic
interpolation, and which differences exceed the spread over the seeds. Variants in the JSON are not trained again; it
records the precision of each, since a CPU may not have bf16.
"""

import argparse
import copy
import dataclasses
import itertools
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import add_gpu_option, run_cli
from errors import UserError

# --- the variants: which keys of the config they set, or remove ------------------------------------------------------

REMOVED = object()
ARGS, NET, MIXTURE = 'model.args', 'model.args.expansion_spec.args', 'model.args.imnet_spec.args'
PIXEL, LAYER = {f'{NET}.space': 'pixel'}, {f'{MIXTURE}.init': 'layer'}
RESIDUAL, NO_RESIDUAL = {f'{ARGS}.residual': 'bilinear'}, {f'{ARGS}.residual': None}
EVERY_PIXEL = {'train_dataset.wrapper.args.sample_q': REMOVED}


def functions(count):
    return {f'{NET}.out_dim': count, f'{MIXTURE}.K': count}


def width(number):
    return {f'{MIXTURE}.hidden_list': [number] * 4}


def sibling(name, imnet, **args):
    """The published decoder `name`, with the network `imnet` and other `args`."""
    return {'model.name': name, f'{ARGS}.expansion_spec': REMOVED, f'{ARGS}.imnet_spec': imnet,
            **{f'{ARGS}.{key}': value for key, value in args.items()}}


def mlp(*widths):
    return {'name': 'mlp', 'args': {'hidden_list': list(widths)}}


def modulated(depth):
    return {'name': 'lmmlp', 'args': {'hidden_dim': 16, 'hidden_depth': depth}}


SINGLE = {f'{MIXTURE}.K': 1, f'{ARGS}.expansion_spec': REMOVED}
SOFTMAX = {f'{NET}.norm': 'softmax'}
LIIF = sibling('liif', mlp(256, 256, 256, 256))
LTE = sibling('lte', mlp(256, 256, 256))
LM_LIIF = sibling('lmliif', modulated(6), hypernet_spec=mlp(208), mod_input=True)
LM_LTE = sibling('lmlte', modulated(8), hypernet_spec=mlp(288), mod_input=True)
BICUBIC = 'bicubic'  # nothing to train
VARIANTS = {
    'A-LIIF (K = 10)': {},
    'K = 1, no expansion net': SINGLE,
    'K = 4': functions(4),
    'K = 20': functions(20),
    'softmax': SOFTMAX,
    'layer init': LAYER,
    'layer init, K = 1': {**LAYER, **SINGLE},
    'layer init, softmax': {**LAYER, **SOFTMAX},
    'residual': RESIDUAL,
    'layer init, residual': {**LAYER, **RESIDUAL},
    'layer init, residual, K = 1': {**LAYER, **RESIDUAL, **SINGLE},
    'pixel space': PIXEL,
    'pixel space, layer init': {**PIXEL, **LAYER},
    'pixel space, residual': {**PIXEL, **RESIDUAL},
    'pixel space, layer init, residual': {**PIXEL, **LAYER, **RESIDUAL},
    'pixel space, layer init, residual, K = 32, width 32': {
        **PIXEL, **LAYER, **RESIDUAL, **functions(32), **width(32)},
    'pixel space, layer init, residual, K = 16, width 32, every pixel': {
        **PIXEL, **LAYER, **RESIDUAL, **functions(16), **width(32), **EVERY_PIXEL},
    'pixel space, layer init, residual, K = 16, width 64, every pixel': {
        **PIXEL, **LAYER, **RESIDUAL, **functions(16), **width(64), **EVERY_PIXEL},
    'pixel space, layer init, residual, K = 16, width 32, every pixel, small expansion net': {
        **PIXEL, **LAYER, **RESIDUAL, **functions(16), **width(32), **EVERY_PIXEL, f'{NET}.hidden_list': [64, 64]},
    'LIIF': LIIF,
    'LIIF, residual': {**LIIF, **RESIDUAL},
    'LTE (has the residual)': LTE,
    'LTE, no residual': {**LTE, **NO_RESIDUAL},
    'LM-LIIF': LM_LIIF,
    'LM-LIIF, residual': {**LM_LIIF, **RESIDUAL},
    'LM-LTE (has the residual)': LM_LTE,
    'LM-LTE, no residual': {**LM_LTE, **NO_RESIDUAL},
    BICUBIC: None,
}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_gpu_option(parser)
    parser.add_argument('--only', nargs='+', choices=VARIANTS, metavar='VARIANT',
                        help=f'train only these: {"; ".join(VARIANTS)}')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import yaml

import models
from config import load_yaml
from datasets import make_loader
from devices import has_bf16, pick_device
from evaluation import eval_psnr
from models.checkpoint import read
from scripts.output import markdown, read_rows, update_page, write_rows
from training.run import differences, read_config

BASE, RESULTS = Path('configs/train-photos/ablation.yaml'), Path('results/ablations.json')
SEEDS = 0, 1


def changed(config, changes):
    """A copy of `config` in which the dotted keys of `changes` have the given values, or are removed."""
    config = copy.deepcopy(config)
    for key, value in changes.items():
        *parents, last = key.split('.')
        node = config
        for parent in parents:
            node = node[parent]
        if value is REMOVED:
            del node[last]
        else:
            node[last] = copy.deepcopy(value)
    return config


# --- training and comparing ------------------------------------------------------------------------------------------


def trained(variant, seed, gpu):
    """The checkpoint of a variant, trained to the end of the budget."""
    config = changed(load_yaml(BASE), VARIANTS[variant])
    name = f'ablations/{variant.replace(" ", "")}-{seed}'
    path, checkpoint = Path('save', f'{name}.yaml'), Path('save', name, 'epoch-last.pth')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding='utf-8')
    if not checkpoint.exists() or read(checkpoint)['epoch'] < config['epoch_max']:
        command = [sys.executable, ROOT / 'train_liif.py', '--config', path, '--name', name, '--seed', str(seed),
                   '--gpu', gpu, '--resume']
        if subprocess.run(command).returncode:
            raise UserError(f'{variant}, seed {seed}: training ended early; the same command continues it')
    own = checkpoint.with_name('config.yaml')
    wanted, found = (dataclasses.asdict(read_config(file, {'seed': seed})) for file in (path, own))
    if other := differences(wanted, found):
        raise UserError(f'{own}: has another budget ({other[0]} differs): remove the folder')
    return checkpoint


def measure(variant, seed, gpu, device):
    """PSNR of a variant on the validation crops; it is trained first if need be."""
    model = models.Bicubic() if variant == BICUBIC else models.load(trained(variant, seed, gpu)).to(device)
    return eval_psnr(make_loader(load_yaml(BASE)['val_dataset'], seed=0), model, model.data_norm, verbose=True)


def spread(values):
    """The range of PSNR over a variant's seeds; None for fewer than two."""
    return max(values) - min(values) if len(values) > 1 else None


def table(rows):
    """Markdown: PSNR of each variant, its spread over the seeds, and its mean difference from the first variant.

    The difference is over the seeds that both have; it is bold if it exceeds the spread of both.
    """
    measured = {(row['variant'], row['seed']): row['psnr'] for row in rows}
    by_seed = {variant: {seed: measured[variant, seed] for seed in SEEDS if (variant, seed) in measured}
               for variant in VARIANTS}
    lines, base = [], by_seed[next(iter(VARIANTS))]
    for variant, psnr in by_seed.items():
        if psnr:
            gains = [psnr[seed] - base[seed] for seed in psnr if seed in base]
            spreads = [spread(values.values()) for values in (psnr, base)]
            gain = f'{statistics.mean(gains):+.2f}' if gains else '–'
            if gains and None not in spreads and abs(statistics.mean(gains)) > max(spreads):
                gain = f'**{gain}**'
            cells = [f'{psnr[seed]:.2f}' if seed in psnr else '–' for seed in SEEDS]
            apart = '–' if spreads[0] is None else f'{spreads[0]:.2f}'
            lines.append([variant, *cells, apart, gain])
    return markdown(['model', *(f'seed {seed}' for seed in SEEDS), 'spread', 'mean difference'], lines)


def publish(rows):
    """Writes the JSON and the table in docs/results.md."""
    write_rows(RESULTS, rows)
    update_page('ablations', table(rows))


def main():
    args = parse_args()
    device = pick_device(args.gpu)
    precision = 'bf16' if load_yaml(BASE).get('amp') and has_bf16(device) else 'float32'
    for seed, variant in itertools.product(SEEDS, args.only or VARIANTS):
        if not any((row['variant'], row['seed']) == (variant, seed) for row in read_rows(RESULTS)):
            row = {'variant': variant, 'seed': seed, 'psnr': round(measure(variant, seed, args.gpu, device), 4),
                   'precision': 'float32' if variant == BICUBIC else precision}
            publish([*read_rows(RESULTS), row])  # another process may have added some


if __name__ == '__main__':
    run_cli(main)
