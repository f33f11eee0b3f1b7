"""The benchmark: the published forms compute what the models do, and its numbers are what they are said to be."""

import contextlib
import copy
import io
import json
import re
import statistics
import sys

import pytest
import readme
import torch

import config
from errors import UserError
from scripts import benchmark, benchmark_forms

CPU = torch.device('cpu')
PUBLISHED = 'A-liif', 'liif'
VERSIONS = *PUBLISHED, 'A-liif-pixel', 'metasr'  # those that the script measures here
SMALL = {'MODELS': VERSIONS, 'FEATURES': 8, 'SIZES': ((4, 5, 2), (6, 5, 3)), 'PUBLISHED_QUERIES': 100, 'BATCH': 2,
         'CROP': 4, 'SAMPLE_Q': 7, 'PRODUCT': 64,
         'OPTIONS': {'channels-last': benchmark.OPTIONS['channels-last']}}  # compiling is slow

pytestmark = pytest.mark.usefixtures('seeded')
each_published = pytest.mark.parametrize('name', benchmark_forms.FORMS)


@pytest.fixture(scope='module', autouse=True)
def small():
    """Sizes, and an encoder, that take no time."""
    def load_yaml(path):
        content = config.load_yaml(path)
        content['model']['args']['encoder_spec']['args'].update(n_resblocks=1, n_feats=SMALL['FEATURES'])
        return content

    with pytest.MonkeyPatch.context() as patch:
        for key, value in SMALL.items():
            patch.setattr(benchmark, key, value)
        patch.setattr(benchmark, 'load_yaml', load_yaml)
        yield


def build(name):
    """The benchmark's model, in float64 and with weights large enough for A-LIIF's layers to matter."""
    model = benchmark.build(name, CPU).double()
    for name, param in model.named_parameters():
        if not name.startswith('encoder.'):
            torch.nn.init.normal_(param, std=0.2 if name.startswith('imnet') else 0.05)
    return model


def queries(batch, n):
    coord = torch.rand(batch, n, 2, dtype=torch.float64) * 2 - 1
    return coord, torch.rand(batch, 1, 2, dtype=torch.float64).expand_as(coord) * 0.3


# --- the published forms -------------------------------------------------------------------------------------------


@each_published
def test_published_form_equals_the_model(name):
    model, (coord, cell) = build(name), queries(2, 200)
    inp = torch.rand(2, 3, 4, 8, dtype=torch.float64)  # powers of two: their pixels' centres are exact in float32
    expected = model(inp, coord, cell)
    assert expected.std() > 0.01
    actual = benchmark_forms.forward(model, benchmark_forms.FORMS[name], inp, coord, cell)
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-11)


@each_published
def test_published_decoding_gives_the_first_queries_of_the_image_that_ours_gives(name, monkeypatch):
    monkeypatch.setattr(benchmark_forms, 'CHUNK', 30)
    model, feat = build(name), torch.randn(1, benchmark.FEATURES, 4, 8, dtype=torch.float64)
    model.encoder = benchmark.FixedFeatures(feat)
    inp = torch.rand(3, 4, 8, dtype=torch.float64)
    image = benchmark.decode(model, inp, (12, 19), 'float32')
    pixels = image.flatten(1).t()
    assert image.shape == (3, 12, 19) and 0 < pixels.mean() < 1
    actual = benchmark_forms.decode(model, benchmark_forms.FORMS[name], feat, inp[None], (12, 19), 100)
    torch.testing.assert_close(actual[0].clamp(0, 1), pixels[:100], rtol=1e-9, atol=1e-11)


@each_published
def test_training_steps_of_both_forms_change_the_weights_alike(name):
    ours, published = build(name), build(name)
    before = copy.deepcopy(ours.state_dict())
    batch = torch.rand(2, 3, 4, 8, dtype=torch.float64), *queries(2, 50), torch.rand(2, 50, 3, dtype=torch.float64)
    for model, form in ((ours, None), (published, benchmark_forms.FORMS[name])):
        optimizer = torch.optim.SGD(model.parameters(), lr=1)
        benchmark.train_step(model, form, optimizer, batch, 'float32')
    for key, value in published.state_dict().items():
        assert not torch.equal(value, before[key]), key
        torch.testing.assert_close(ours.state_dict()[key], value, rtol=1e-5, atol=1e-8)  # the loss is float32


# --- the numbers ---------------------------------------------------------------------------------------------------


def test_peak_memory_is_what_the_call_held_at_once():
    def call():
        for _ in range(3):
            torch.ones(2, 12_000_000).sum(dim=0)  # 96 MB, and 48 for the sum

    # What a call left to malloc does not make the next one look smaller. The smallest counts, and may be larger than
    # 144 MB: on a busy machine pages that the system had taken away may come back meanwhile.
    assert 130e6 < min(benchmark.peak_bytes(call, CPU) for _ in range(3)) < 200e6  # 432 would be that of all together


def test_flops_are_two_for_each_multiply_add_backward_included():
    a, b = torch.rand(30, 40, requires_grad=True), torch.rand(40, 50)
    assert benchmark.flops(lambda: (a @ b).sum().backward()) == 2 * (2 * 30 * 40 * 50)


def test_flops_of_a_product_in_place_are_counted_too():
    a, b, c = torch.rand(30, 40), torch.rand(40, 50), torch.rand(30, 50)
    assert benchmark.flops(lambda: c.addmm_(a, b)) == 2 * 30 * 40 * 50


def test_bf16_counts_the_flops_of_float32(results):
    for rows in results[1]['tables'].values():
        counts = {(row['name'], row['precision']): row['flops'] for row in rows}
        assert all(counts[name, 'bf16'] == counts[name, 'float32'] for name in VERSIONS)


def test_all_takes_turns_and_the_median_counts():
    calls, clock = [], iter([0, 1, 0, 5, 0, 2, 0, 9, 0, 30, 0, 7])  # seconds at start and end of each timed call
    cases = [benchmark.Case(name, 'float32', 4, lambda name=name: calls.append(name)) for name in 'ab']
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark.time, 'perf_counter', lambda: next(clock))
        patch.setattr(benchmark, 'tqdm', lambda items, *args, **kwargs: items)
        a, b = benchmark.measure('title', cases, CPU, 3)
    assert calls[-6:] == ['a', 'b'] * 3
    assert (a['seconds'], b['seconds']) == (2 / 4, 7 / 4)
    assert (a['runs'], b['runs']) == ((1, 2, 30), (5, 9, 7))


# --- the script ----------------------------------------------------------------------------------------------------


def run(patch, *args):
    """What the script prints."""
    patch.setattr(sys, 'argv', ['benchmark.py', '--gpu', 'cpu', *map(str, args)])
    with contextlib.redirect_stdout(io.StringIO()) as output:
        benchmark.main()
    return output.getvalue()


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Output and JSON of a whole run, by the README's command."""
    path, (command,) = tmp_path_factory.mktemp('benchmark') / 'results.json', readme.commands('benchmark.py')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark, 'has_bf16', lambda device: True)
        output = run(patch, *command[2:], '--json', path)
    return output, json.loads(path.read_text())


def cells(output):
    """The tables' rows, as lists of their cells."""
    return [line.strip('| ').split(' | ') for line in output.splitlines() if line.startswith('| ')]


def test_there_is_a_table_for_each_size_and_one_for_training(results):
    titles = re.findall('### (.*)', results[0])
    assert [title.split(',')[0] for title in titles] == ['Decoding 5x4 at x2', 'Decoding 5x6 at x3', 'Training step']
    assert 'published' not in titles[0] and 'published: the first 100' in titles[1]
    assert list(results[1]['tables']) == titles


def test_every_version_is_in_every_table(results):
    expected = sorted([(name, precision) for name in VERSIONS for precision in ('float32', 'bf16')]
                      + [(f'published-{name}', 'float32') for name in PUBLISHED])
    rows = [tuple(row[:2]) for row in cells(results[0]) if row[1] in ('float32', 'bf16')]
    count = len(expected)
    assert all(sorted(rows[i:i + count]) == expected for i in (0, count))
    options = [('A-liif --channels-last', 'float32'), ('A-liif --channels-last', 'bf16')]
    assert sorted(rows[2 * count:]) == sorted(expected + options)


def test_output_says_on_what_machine(results):
    assert torch.__version__ in results[0].splitlines()[1] and 'threads' in results[1]['machine']


def test_times_are_medians_of_the_runs_over_the_queries(results):
    rows = results[1]['tables']['Decoding 5x6 at x3, 270 queries (published: the first 100)']
    for row in rows[:-4]:
        assert row['count'] == (100 if row['name'].startswith('published') else 270)
        assert len(row['runs']) == 3
        assert row['seconds'] == pytest.approx(statistics.median(row['runs']) / row['count'])


def test_ratios_and_share_of_the_ceiling_follow_from_the_times(results):
    rows = next(iter(results[1]['tables'].values()))
    by_name = {(row['name'], row['precision']): row for row in rows}
    head, *told = cells(results[0])[:1 + 2 * len(VERSIONS) + len(PUBLISHED)]
    for row in (dict(zip(head, cells, strict=True)) for cells in told):
        own = by_name[row['version'], row['precision']]
        for name in ('published-A-liif', 'published-liif'):
            ratio = by_name[name, 'float32']['seconds'] / own['seconds']
            assert float(row[f'times {name}']) == pytest.approx(ratio, abs=0.006)
        products = [r for r in rows if r['name'] == 'matrix product' and r['precision'] == row['precision']]
        assert [r['flops'] for r in products] == [2 * 64 ** 3] * 2
        ceiling = max(r['flops'] / statistics.median(r['runs']) for r in products)
        share = own['flops'] / statistics.median(own['runs']) / ceiling
        assert float(row['of the ceiling'].rstrip('%')) == pytest.approx(100 * share, abs=0.51)


def test_only_leaves_the_others_out(monkeypatch):
    output = run(monkeypatch, '--repeats', 1, '--only', 'metasr', 'published-liif')
    assert {row[0] for row in cells(output)[2:] if row[0] not in ('version', '---')} == {'metasr', 'published-liif'}
    assert 'times published-liif' in output and 'times published-A-liif' not in output


def test_repeats_below_one_are_an_error_that_says_so(monkeypatch):
    with pytest.raises(UserError, match='--repeats.*at least 1.*0'):
        run(monkeypatch, '--repeats', 0)
