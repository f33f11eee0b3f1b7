"""Times decoding and training: our models, compared with naive code for the same equations as published.

    python scripts/benchmark.py [--gpu cpu] [--repeats 5] [--only A-liif published-A-liif] [--json results.json]

The published forms (scripts/benchmark_forms.py) gather features for each of a query's four codes and, in A-LIIF, build
a matrix for each query and layer. They have the same weights and inputs as ours.

Decoding is everything after the encoder, from the feature map to the image in main memory; a training step is forward,
backward and Adam. The versions take turns, and the tables show medians. Peak memory is the memory that a call needs in
addition to what the process or the GPU already held. FLOP/s count the matrix products and convolutions that a version
executes in float32. They are compared with a large matrix product of the same data type, timed in turn with the others:
the faster of `torch.matmul` and the models' own `linear`.
"""

import argparse
import ctypes
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
from cli import add_gpu_option, run_cli
from errors import UserError, size_text, unknown

# configs/train-div2k/train_edsr-baseline-*.yaml
MODELS = 'A-liif', 'A-liif-pixel', 'liif', 'metasr', 'lte', 'lte-fast', 'lmliif', 'lmlte'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_gpu_option(parser)
    parser.add_argument('--repeats', type=int, default=5, help='number of rounds that are timed')
    parser.add_argument('--only', nargs='+', default=[], metavar='VERSION',
                        help=f'some of {", ".join(MODELS)}, and of these with published- in front')
    parser.add_argument('--json', help='write the numbers here, also those of each round')
    return parser.parse_args()


if __name__ == '__main__':
    run_cli(parse_args)

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

import models
from config import check_positive, load_yaml
from devices import device_name, has_bf16, pick_device
from files import make_place
from models import a_liif
from models.mlp import linear
from models.predict import upscale_whole
from scripts import benchmark_forms as forms
from scripts.output import markdown
from utils import write_json

SIZES = (90, 160, 4), (339, 510, 4)  # height and width of the input, scale; the second is a DIV2K image's
PUBLISHED_QUERIES = 60_000  # the published forms decode only the first queries of larger images: all take minutes
BATCH, CROP, SAMPLE_Q = 8, 48, 2304  # of a training step
FEATURES = 64  # channels of EDSR-baseline's features
CEILING, PRODUCT = 'matrix product', 4096  # sides of the two matrices


# --- what is measured ------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """One version: `call()` does the work for `count` queries or steps."""
    name: str
    precision: str
    count: int
    call: Callable


class FixedFeatures(nn.Module):
    """A replacement for the encoder: returns the feature map `feat` of the whole picture, at no cost."""
    receptive_radius = None  # no tiles

    def __init__(self, feat):
        super().__init__()
        self.feat, self.out_dim = nn.Parameter(feat, requires_grad=False), feat.shape[1]  # tells device and dtype

    def forward(self, inp):
        return self.feat


def build(name, device):
    torch.manual_seed(0)
    spec = load_yaml(ROOT / f'configs/train-div2k/train_edsr-baseline-{name}.yaml')['model']
    return models.make(spec).to(device)


def autocast(device, precision):
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == 'bf16')


def decode(model, image, size, precision):
    """Decodes the whole image, in bands, on the model's fast path."""
    with autocast(image.device, precision):
        return upscale_whole(model, image, size)


def train_step(model, form, optimizer, batch, precision):
    """A training step; `form`: the published form, or None for ours."""
    inp, coord, cell, target = batch
    with autocast(inp.device, precision):
        pred = model(inp, coord, cell) if form is None else forms.forward(model, form, inp, coord, cell)
    optimizer.zero_grad()
    F.l1_loss(pred.float(), target).backward()
    optimizer.step()


def versions():
    """Yields name, model, published form (None for ours) and precision of each version."""
    for name in MODELS:
        if name in forms.FORMS:
            yield f'published-{name}', name, forms.FORMS[name], 'float32'
        for precision in ('float32', 'bf16'):
            yield name, name, None, precision


def decode_cases(device, h, w, scale):
    """Yields the cases of decoding an h x w input at `scale`, from random features."""
    torch.manual_seed(0)
    image, feat = torch.rand(3, h, w, device=device), torch.randn(1, FEATURES, h, w, device=device)
    size, queries = (h * scale, w * scale), h * w * scale ** 2
    first = min(queries, PUBLISHED_QUERIES)
    for name, model_name, form, precision in versions():
        model = build(model_name, device).eval()
        model.encoder = FixedFeatures(feat)
        if form is None:
            yield Case(name, precision, queries, partial(decode, model, image, size, precision))
        else:
            yield Case(name, precision, first, partial(forms.decode, model, form, feat, image[None], size, first))


WITH_OPTIONS = 'A-liif'  # the version whose training steps are timed with these options of train_liif.py, too
def channels_last(model):
    """`model` with the memory format that train_liif.py's option of that name gives its encoder."""
    model.encoder.to(memory_format=torch.channels_last)
    return model


OPTIONS = {'channels-last': channels_last, 'compile': torch.compile}


def training_cases(device):
    """Yields the cases of a training step on random data."""
    torch.manual_seed(0)
    inp, target = torch.rand(BATCH, 3, CROP, CROP, device=device), torch.rand(BATCH, SAMPLE_Q, 3, device=device)
    coord = torch.rand(BATCH, SAMPLE_Q, 2, device=device) * 2 - 1
    batch = inp, coord, torch.full_like(coord, 0.8 / CROP), target  # cells of x2.5

    def case(name, model, form, precision):
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        return Case(name, precision, 1, partial(train_step, model, form, optimizer, batch, precision))

    for name, model_name, form, precision in versions():
        yield case(name, build(model_name, device), form, precision)
        for option, apply in OPTIONS.items() if name == WITH_OPTIONS else ():
            yield case(f'{name} --{option}', apply(build(model_name, device)), None, precision)


def ceiling_cases(device):
    for precision, dtype in (('float32', torch.float32), ('bf16', torch.bfloat16)):
        a, b = torch.randn(2, PRODUCT, PRODUCT, device=device).to(dtype)
        yield Case(CEILING, precision, 1, partial(torch.matmul, a, b))
        yield Case(CEILING, precision, 1, partial(linear, a, b))


# --- measuring -------------------------------------------------------------------------------------------------------


def seconds(call, device):
    """The duration of one call."""
    wait = torch.get_device_module(device).synchronize
    wait(device)
    start = time.perf_counter()
    call()
    wait(device)
    return time.perf_counter() - start


def measured_device(gpu):
    """The device that `--gpu` names; UserError if `peak_bytes` cannot measure it."""
    device = pick_device(gpu)
    if device.type == 'cpu' and sys.platform != 'linux':
        raise UserError('the peak memory of a call on a CPU can be measured on Linux only')
    return device


def peak_bytes(call, device):
    """The peak memory of one call, in addition to what was held before it."""
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call reuses memory that malloc has kept, and needs none
    Path('/proc/self/clear_refs').write_text('5')  # resets the peak of the resident memory
    before = peak_resident()
    call()
    return peak_resident() - before


def peak_resident():
    return int(re.search(r'VmHWM:\s+(\d+) kB', Path('/proc/self/status').read_text())[1]) * 1024


def flops(call):
    """The FLOPs of `call`; those of a fused kernel are counted in the layers that it replaces."""
    inplace = {torch.ops.aten.addmm_: lambda out, a, b, **_: 2 * a[0] * a[1] * b[1]}
    with patch.object(a_liif, 'fused_kernel', lambda *_: None), patch.object(a_liif, 'pixel_kernel', lambda *_: None), \
            FlopCounterMode(display=False, custom_mapping=inplace) as counter:
        call()
    return counter.get_total_flops()


def measure(title, cases, device, repeats):
    """A row of numbers for each case; the first two calls of a case are not timed."""
    rows, counted = [], {}
    for case in tqdm(cases, f'{title}, warm-up', leave=False):
        # counted in a version's first case, float32: extra operations of bf16 for the same result are no gain
        count = counted.setdefault(case.name, flops(case.call))
        rows.append({'name': case.name, 'precision': case.precision, 'count': case.count, 'flops': count,
                     'peak_bytes': peak_bytes(case.call, device)})
    rounds = [[seconds(case.call, device) for case in cases] for _ in tqdm(range(repeats), title, leave=False)]
    for row, runs in zip(rows, zip(*rounds, strict=True), strict=True):
        median = statistics.median(runs)
        row.update(runs=runs, seconds=median / row['count'], flops_per_second=row['flops'] / median)
    return rows


# --- reporting -------------------------------------------------------------------------------------------------------


def machine(device):
    """A description of the hardware and software that the numbers depend on."""
    return (f'{device_name(device)}, {torch.get_num_threads()} threads, {os.cpu_count()} cores, '
            f'PyTorch {torch.__version__}')


def table(rows, unit, factor):
    """A Markdown table. Times are in `unit` (seconds times `factor`) and compared with those of the published forms."""
    products = sorted((row for row in rows if row['name'] == CEILING), key=lambda row: row['flops_per_second'])
    ceiling = {row['precision']: row['flops_per_second'] for row in products}  # keeps the faster of two
    published = {row['name']: row['seconds'] for row in rows if row['name'].startswith('published')}
    head = ['version', 'precision', unit, *(f'times {name}' for name in published), 'peak memory, MB', 'GFLOP/s',
            'of the ceiling']
    lines = []
    for row in rows:
        if row['name'] != CEILING:
            rate, share = row['flops_per_second'], row['flops_per_second'] / ceiling[row['precision']]
            ratios = [f'{seconds / row["seconds"]:.2f}' for seconds in published.values()]
            lines.append([row['name'], row['precision'], f'{row["seconds"] * factor:.4g}', *ratios,
                          f'{row["peak_bytes"] / 1e6:.0f}', f'{rate / 1e9:.0f}', f'{share:.0%}'])
    ceilings = ', '.join(f'{rate / 1e9:.0f} GFLOP/s in {precision}' for precision, rate in ceiling.items())
    return f'{markdown(head, lines, words=2)}\n\nThe ceiling: {ceilings}.'


def sections(device):
    """Yields, for each table, its title, cases, unit of time, and the number of units in a second."""
    for h, w, scale in SIZES:
        title = f'Decoding {size_text((h, w))} at x{scale}, {h * w * scale ** 2:,} queries'
        if h * w * scale ** 2 > PUBLISHED_QUERIES:
            title += f' (published: the first {PUBLISHED_QUERIES:,})'
        yield title, decode_cases(device, h, w, scale), 'us/query', 1e6
    yield f'Training step, batch of {BATCH}, {CROP}x{CROP}, {SAMPLE_Q} queries', training_cases(device), 's/step', 1


def main():
    args = parse_args()
    known = {name for name, *_ in versions()}
    for name in args.only:
        if name not in known:
            raise unknown('version', name, known)
    check_positive(**{'--repeats': args.repeats})
    device = measured_device(args.gpu)
    if args.json:  # before the work
        make_place(args.json)

    report = {'machine': machine(device), 'tables': {}}
    print(f'{report["machine"]}; medians of {args.repeats}')
    for title, cases, unit, factor in sections(device):
        cases = [case for case in cases if not args.only or case.name.split()[0] in args.only]
        cases = [case for case in (*cases, *ceiling_cases(device)) if case.precision != 'bf16' or has_bf16(device)]
        rows = report['tables'][title] = measure(title, cases, device, args.repeats)
        print(f'\n### {title}\n\n{table(rows, unit, factor)}', flush=True)
        if args.json:
            write_json(args.json, report)


if __name__ == '__main__':
    run_cli(main)
