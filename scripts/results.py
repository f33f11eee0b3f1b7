"""Measures bicubic and all weights in pretrained/ on the test configs whose images are available.

    python scripts/results.py [--gpu 0] [--sets set5 set14] [--models bicubic NAME NAME+] [--import examples.own_model]

Writes results/results.json, the table between the markers in docs/results.md, and results/psnr.png, all in the working
directory. Results in the JSON of the same weights, identified by SHA-256, are kept, so that an interrupted run can be
continued; `--fresh` measures them again. Results of other weights are dropped. NAME+ is NAME with the self-ensemble,
the mean over 8 flips and transposes; it is only measured if --models says so.
"""

import argparse
import functools
import hashlib
import itertools
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from cli import add_gpu_option, add_import_option, run_cli
from errors import UserError, unknown

SETS = {'set5': ('Set5', 5), 'set14': ('Set14', 14), 'b100': ('B100', 100), 'urban100': ('Urban100', 100),
        'div2k': ('DIV2K', 100), 'photos2k': ('photos2k', 6)}  # name in configs: (title, number of images)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_gpu_option(parser)
    parser.add_argument('--sets', nargs='*', choices=SETS, help='measure only these')
    parser.add_argument('--models', nargs='+', help='measure only these: bicubic, names in pretrained/, or NAME+')
    parser.add_argument('--fresh', action='store_true', help='measure again what the JSON has for these weights')
    add_import_option(parser)
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

from matplotlib.figure import Figure

from config import load_yaml
from devices import pick_device
from evaluation import EvalConfig, evaluate, load_model
from models.pretrained import pretrained
from scripts.output import markdown, read_rows, update_page, write_figure, write_rows
from scripts.prepare_data import count
from utils import number_text

CONFIGS, PRETRAINED = Path('configs/test'), Path('pretrained')
RESULTS, FIGURE = Path('results/results.json'), Path('results/psnr.png')


# --- what to measure -----------------------------------------------------------------------------------------------


@functools.cache
def scale_in(path):
    """The scale of the test config at `path`."""
    return EvalConfig.read(path).scale


def configs_of(name):
    """The test configs of the set `name`, by scale."""
    if not (paths := sorted(CONFIGS.glob(f'test-{name}-*.yaml'), key=scale_in)):
        raise UserError(f'{CONFIGS} has no test configs of {name} here: run it in the repository')
    return paths


def colours(name):
    """What PSNR compares on the set `name`: Y or RGB."""
    return 'Y' if load_yaml(configs_of(name)[0])['eval_type'].startswith('benchmark') else 'RGB'


def is_whole(name):
    """Whether all images of the set `name` are available; prints a line if not."""
    title, expected = SETS[name]
    folder = Path(load_yaml(configs_of(name)[0])['test_dataset']['dataset']['args']['root_path'])
    if count(folder) != expected:
        print(f'{title} is left out: {folder} has {count(folder)} of {expected} images', file=sys.stderr)
    return count(folder) == expected


def digests():
    """The models by name: None for bicubic, the SHA-256 of their file for the weights in pretrained/, also as NAME+."""
    found = {'bicubic': None}
    for name, path in sorted(pretrained(PRETRAINED).items()):
        found[name] = found[f'{name}+'] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def choose(names, sha256):
    """The models to measure: those of --models, or all without the self-ensemble."""
    for name in names or ():
        if name not in sha256:
            raise unknown('model', name, sha256)
    return names or [name for name in sha256 if not name.endswith('+')]


def load_models(names, device):
    files = pretrained(PRETRAINED)
    return {name: load_model(files.get(name.rstrip('+'), name)).to(device) for name in names}


# --- measuring -----------------------------------------------------------------------------------------------------


def read_results(sha256):
    """The results {(config, model): {'psnr', 'ssim', ...}} in the JSON that were measured with weights in `sha256`."""
    return {(row['config'], row['model']): row for row in read_rows(RESULTS)
            if row['model'] in sha256 and row['sha256'] == sha256[row['model']]}


def write_results(results, sha256):
    """Writes one row per line, in the order of sets, scales and models; keeps rows that another process has written."""
    results = read_results(sha256) | results
    keys = itertools.product((str(config) for name in SETS for config in configs_of(name)), sha256)
    write_rows(RESULTS, [results[key] for key in keys if key in results])


def measure(names, results, sha256, nets, fresh=False):
    """Adds missing results (all if `fresh`) for the sets `names` and models `nets` to `results`; writes each at once.

    Returns the number of results that were kept and measured.
    """
    pairs = list(itertools.product((config for name in names for config in configs_of(name)), nets))
    measured = 0
    for config, model in pairs:
        key = str(config), model
        if fresh or key not in results:
            measured += 1
            found = evaluate(config, nets[model], self_ensemble=model.endswith('+'))
            results[key] = {'config': key[0], 'model': model, 'sha256': sha256[model],
                            'psnr': round(found['psnr'], 4), 'ssim': round(found['ssim'], 4)}
            write_results(results, sha256)
            psnr, ssim = (number_text(found[metric]) for metric in ('psnr', 'ssim'))
            print(f'{config.stem:20s} {model:32s} PSNR {psnr:>8s}   SSIM {ssim}', flush=True)
    return len(pairs) - measured, measured


def psnr_over_scale(results, name, model):
    """The results of a `model` on the set `name`: {scale: PSNR in dB}."""
    keys = {scale_in(config): (str(config), model) for config in configs_of(name)}
    psnr = {scale: results[key]['psnr'] for scale, key in keys.items() if key in results}
    return {scale: value for scale, value in psnr.items() if value is not None and math.isfinite(value)}


def measured_sets(results, sha256):
    return [name for name in SETS if any(psnr_over_scale(results, name, model) for model in sha256)]


# --- table ---------------------------------------------------------------------------------------------------------


def table(results, sha256):
    """PSNR in Markdown: a row for each set and model, and a new table when the scales change."""
    rows = {}  # of each table, by its scales
    for name in measured_sets(results, sha256):
        scales, title = tuple(scale_in(config) for config in configs_of(name)), SETS[name][0]
        for model in sha256:
            if psnr := psnr_over_scale(results, name, model):
                cells = [f'{psnr[scale]:.2f}' if scale in psnr else '–' for scale in scales]
                rows.setdefault(scales, []).append([title, model, *cells])
                title = ''
    return '\n\n'.join(markdown(['PSNR (dB)', '', *(f'×{scale:g}' for scale in scales)], lines, words=2)
                       for scales, lines in rows.items())


# --- figure --------------------------------------------------------------------------------------------------------


def draw(results, sha256):
    """A figure of PSNR over scale and, below, the gain over bicubic, with a column for each set."""
    names = measured_sets(results, sha256)
    figure = Figure(figsize=(1 + 2.8 * len(names), 5.5), layout='constrained')
    columns = figure.subplots(2, len(names), squeeze=False, sharex='col').T
    for (top, bottom), name in zip(columns, names, strict=True):
        bicubic = psnr_over_scale(results, name, 'bicubic')
        for model in filter(lambda model: not model.endswith('+'), sha256):
            psnr = psnr_over_scale(results, name, model)
            gain = {scale: psnr[scale] - bicubic[scale] for scale in psnr if scale in bicubic}
            style = {'color': 'gray', 'linestyle': '--'} if model == 'bicubic' else {}
            top.plot(list(psnr), list(psnr.values()), marker='.', label=model, **style)
            bottom.plot(list(gain), list(gain.values()), marker='.', **style)
        top.set_title(f'{SETS[name][0]} ({colours(name)})')
        bottom.sharey(columns[0, 1])
        bottom.set(xlabel='Scale', xticks=[scale for scale in bicubic if scale == int(scale)])
        bottom.xaxis.set_major_formatter('×{x:g}')
        for axes in top, bottom:
            axes.grid(color='0.9')
            axes.spines[['top', 'right']].set_visible(False)
    figure.axes[0].set_ylabel('PSNR (dB)')
    figure.axes[len(names)].set_ylabel('Gain over bicubic (dB)')
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc='outside lower center', ncols=2, frameon=False)
    return figure


# --- command line --------------------------------------------------------------------------------------------------


def publish(results, sha256):
    """Writes results/ and the table in docs/results.md."""
    write_results(results, sha256)
    results = read_results(sha256)
    update_page('results', table(results, sha256))
    write_figure(FIGURE, draw(results, sha256), dpi=120)


def main():
    args = parse_args()
    device = pick_device(args.gpu)
    sha256 = digests()
    results, nets = read_results(sha256), load_models(choose(args.models, sha256), device)
    try:
        kept, measured = measure(list(filter(is_whole, args.sets or SETS)), results, sha256, nets, args.fresh)
        why = f', of weights that have not changed since ({RESULTS}); --fresh measures all' if kept else ''
        print(f'{measured} results measured, {kept} kept{why}')
    finally:  # also what there is so far if it is interrupted
        if results:
            publish(results, sha256)


if __name__ == '__main__':
    run_cli(main)
