"""scripts/ablations.py: its variants, a real small run, and its table."""

import json
import shutil
import sys
from types import SimpleNamespace

import pytest
import torch
import yaml
from paths import ROOT
from projects import CONFIG, Project, run_training

import models
from config import load_yaml
from errors import UserError
from scripts import ablations

PAGE = 'before\n<!-- ablations -->\n<!-- /ablations -->\nafter\n'


def run_small(folder, monkeypatch, variant='K = 1'):
    """Runs the script for one variant in `folder`, where training takes no time."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(ablations, 'BASE', 'base.yaml')
    monkeypatch.setattr(ablations, 'VARIANTS', {'plain': {}, 'K = 1': ablations.SINGLE, 'bicubic': None})
    monkeypatch.setattr(sys, 'argv', ['ablations.py', '--gpu', 'cpu', '--only', variant])
    ablations.main()


def project(folder):
    Project(folder)
    (folder / 'base.yaml').write_text(yaml.safe_dump({**CONFIG, 'epoch_max': 1}))
    (folder / 'docs').mkdir()
    (folder / 'docs/results.md').write_text(PAGE)
    return folder


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A folder in which one variant is trained, by this process in place of others, and measured."""
    def train(command):
        assert command[1] == ROOT / 'train_liif.py'
        run_training('.', *map(str, command[2:]))
        return SimpleNamespace(returncode=0)

    folder = project(tmp_path_factory.mktemp('ablations'))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ablations, 'subprocess', SimpleNamespace(run=train))
        run_small(folder, patch)
    return folder


MODELS = {name: changes for name, changes in ablations.VARIANTS.items() if changes is not None}


@pytest.mark.parametrize('changes', MODELS.values(), ids=MODELS)
def test_every_variant_is_a_model_of_its_own(changes):
    base = load_yaml(ablations.BASE)
    config = ablations.changed(base, changes)
    assert sum(ablations.changed(base, others) == config for others in MODELS.values()) == 1
    pred = models.make(config['model'])(torch.rand(1, 3, 6, 7), torch.rand(1, 5, 2) * 2 - 1, torch.full((1, 5, 2), 0.1))
    assert pred.shape == (1, 5, 3) and pred.isfinite().all()


def test_a_variant_is_trained_with_every_seed_measured_and_not_trained_again(trained, monkeypatch):
    rows = json.loads((trained / 'results/ablations.json').read_text())
    assert [(row['variant'], row['seed']) for row in rows] == [('K = 1', 0), ('K = 1', 1)]
    assert f'val: psnr={rows[0]["psnr"]:.4f}' in (trained / 'save/ablations/K=1-0/log.txt').read_text()
    assert 5 < rows[1]['psnr'] != rows[0]['psnr']  # on the crops of seed 0, too
    apart = abs(rows[0]['psnr'] - rows[1]['psnr'])
    cells = ' | '.join(f'{number:.2f}' for number in (rows[0]['psnr'], rows[1]['psnr'], apart))
    assert f'| K = 1 | {cells} | – |' in (trained / 'docs/results.md').read_text()
    monkeypatch.setattr(ablations, 'subprocess', None)
    run_small(trained, monkeypatch)


def test_a_run_of_another_budget_is_not_taken_for_this_one(trained, tmp_path, monkeypatch):
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump({**CONFIG, 'epoch_max': 1, 'ema': 0.5}))
    (tmp_path / 'results/ablations.json').unlink()
    with pytest.raises(UserError, match='K=1-0/config.yaml.*another budget.*ema'):
        run_small(tmp_path, monkeypatch)


def test_bicubic_is_measured_on_the_same_crops(tmp_path, monkeypatch):
    run_small(project(tmp_path), monkeypatch, 'bicubic')
    rows = json.loads((tmp_path / 'results/ablations.json').read_text())
    assert [row['seed'] for row in rows] == [0, 1] and rows[0]['psnr'] == rows[1]['psnr'] > 15


def test_the_page_shows_the_committed_results():
    rows = json.loads((ROOT / ablations.RESULTS).read_text())
    assert ablations.table(rows) in (ROOT / 'docs/results.md').read_text()


def lines(*psnr):
    """The table's rows for the first variants with the given PSNR, a dict by seed for each."""
    variants = list(ablations.VARIANTS)
    rows = [{'variant': v, 'seed': s, 'psnr': p} for v, seeds in zip(variants, psnr, strict=False)
            for s, p in seeds.items()]
    found = ablations.table(rows).splitlines()[2:]
    return [line.removeprefix(f'| {variant} | ').removesuffix(' |')
            for line, variant in zip(found, variants, strict=False)]


def test_the_table_compares_the_seeds_that_a_variant_and_the_base_have():
    assert lines({0: 30., 1: 31.}, {0: 30.5, 1: 32.}, {1: 30.}) == [
        '30.00 | 31.00 | 1.00 | +0.00', '30.50 | 32.00 | 1.50 | +0.75', '– | 30.00 | – | -1.00']


@pytest.mark.parametrize('base, other, shown', [
    ((30, 30.1), (30.3, 30.4), '**+0.30**'), ((30, 30.1), (29.7, 29.8), '**-0.30**'),
    ((30, 30.4), (30.3, 30.7), '+0.30'),  # within the spread of both
    ((30, 30.1), (30.1, 30.6), '+0.30'), ((30.5, 30), (30.5, 30.6), '+0.30')])  # within that of one
def test_a_difference_above_the_spread_of_both_is_bold(base, other, shown):
    assert lines(dict(enumerate(base)), dict(enumerate(other)))[1].split(' | ')[-1] == shown
