"""scripts/ablations.py: its variants, a real small run, and its table."""

import json
import sys

import numpy as np
import pytest
import torch
import yaml
from training import CONFIG, REPOSITORY, Project

import models
from config import load_yaml
from scripts import ablations
from utils import UserError

PAGE = 'before\n<!-- ablations -->\n<!-- /ablations -->\nafter\n'


def run_small(tmp_path, monkeypatch, variant='K = 1'):
    """Runs the script for one variant in a project that takes no time."""
    Project(tmp_path)
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump({**CONFIG, 'epoch_max': 1}))
    (tmp_path / 'docs').mkdir(exist_ok=True)
    (tmp_path / 'docs/results.md').write_text(PAGE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablations, 'BASE', 'base.yaml')
    monkeypatch.setattr(ablations, 'VARIANTS', {'plain': {}, 'K = 1': ablations.ONE, 'bicubic': None})
    monkeypatch.setattr(sys, 'argv', ['ablations.py', '--gpu', 'cpu', '--only', variant])
    ablations.main()


MODELS = {name: changes for name, changes in ablations.VARIANTS.items() if changes is not None}


@pytest.mark.parametrize('changes', MODELS.values(), ids=MODELS)
def test_every_variant_is_a_model_of_its_own(changes):
    base = load_yaml(ablations.BASE)['model']
    spec = ablations.changed(base, changes)
    assert (spec != base) == bool(changes)
    pred = models.make(spec)(torch.rand(1, 3, 6, 7), torch.rand(1, 5, 2) * 2 - 1, torch.full((1, 5, 2), 0.1))
    assert pred.shape == (1, 5, 3) and pred.isfinite().all()


def test_a_variant_is_trained_with_every_seed_measured_and_not_trained_again(tmp_path, monkeypatch):
    run_small(tmp_path, monkeypatch)
    rows = json.loads((tmp_path / 'results/ablations.json').read_text())
    assert [(row['variant'], row['seed']) for row in rows] == [('K = 1', 0), ('K = 1', 1)]
    assert f'val: psnr={rows[0]["psnr"]:.4f}' in (tmp_path / 'save/ablations/K=1-0/log.txt').read_text()
    assert 5 < rows[1]['psnr'] != rows[0]['psnr']  # on the crops of seed 0, too
    page = (tmp_path / 'docs/results.md').read_text()
    assert f'| K = 1 | {rows[0]["psnr"]:.2f} | {rows[1]["psnr"]:.2f} | – |' in page
    monkeypatch.setattr(ablations.subprocess, 'run', None)
    ablations.main()


def test_a_run_of_another_budget_is_not_taken_for_this_one(tmp_path, monkeypatch):
    run_small(tmp_path, monkeypatch)
    (tmp_path / 'base.yaml').write_text(yaml.safe_dump({**CONFIG, 'epoch_max': 1, 'ema': 0.5}))
    (tmp_path / 'results/ablations.json').unlink()
    with pytest.raises(UserError, match='K=1-0/config.yaml.*another budget.*ema'):
        ablations.main()


def test_bicubic_is_measured_on_the_same_crops(tmp_path, monkeypatch):
    run_small(tmp_path, monkeypatch, 'bicubic')
    rows = json.loads((tmp_path / 'results/ablations.json').read_text())
    assert [row['seed'] for row in rows] == [0, 1] and rows[0]['psnr'] == rows[1]['psnr'] > 15


def test_readme_shows_the_committed_results():
    rows = json.loads((REPOSITORY / ablations.RESULTS).read_text())
    assert ablations.table(rows) in (REPOSITORY / 'docs/results.md').read_text()


def test_the_table_compares_the_seeds_that_a_variant_and_the_base_have():
    names = list(ablations.VARIANTS)
    psnr = {(names[0], 0): 30., (names[0], 1): 31., (names[1], 0): 30.5, (names[1], 1): 32., (names[2], 1): 30.}
    rows = [{'variant': v, 'seed': s, 'psnr': p} for (v, s), p in psnr.items()]
    lines = ablations.table(rows).splitlines()[2:]
    assert lines == [f'| {names[0]} | 30.00 | 31.00 | +0.00 |',
                     f'| {names[1]} | 30.50 | 32.00 | {np.mean([0.5, 1]):+.2f} |',
                     f'| {names[2]} | – | 30.00 | -1.00 |']
