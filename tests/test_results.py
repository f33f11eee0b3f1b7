"""The committed results are those of the shipped weights, and how the scripts make them and their table."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from paths import ROOT, SHARED
from PIL import Image
from small_repository import PAGE, fill
from specs import a_liif, make_checkpoint

import models
from errors import UserError
from evaluation import evaluate
from scripts import output, results

BENCHMARK = SHARED / 'data' / 'benchmark'
COMMITTED = json.loads((ROOT / 'results/results.json').read_text())
SCALES = ['2', '2.5', '3', '3.7', '4', '6', '8']
TITLES = {'set5': 'Set5', 'set14': 'Set14', 'b100': 'B100', 'urban100': 'Urban100', 'div2k': 'DIV2K',
          'photos2k': 'photos2k'}


def read_table(text):
    """The cells between the markers in `text`: {(title of the set, model, scale): text}, but for dashes."""
    before, inside, after = text.replace('<!-- /results -->', '<!-- results -->').split('<!-- results -->')
    cells, title, scales = {}, None, None
    for line in inside.strip().splitlines():
        first, *rest = [cell.strip() for cell in line.strip('|').split('|')] if line else ['', '']
        if first == 'PSNR (dB)':
            scales = [cell.removeprefix('×') for cell in rest[1:]]
        elif line and not line.startswith('|---'):
            title = first or title
            cells |= {(title, rest[0], scale): cell for scale, cell in zip(scales, rest[1:], strict=True)
                      if cell != '–'}
    return cells


def expected_table(rows):
    """What `read_table` must find for the rows of a results.json."""
    where = {row['config']: Path(row['config']).stem.split('-')[1:] for row in rows}
    return {(TITLES[where[row['config']][0]], row['model'], where[row['config']][1]): f'{row["psnr"]:.2f}'
            for row in rows}


# --- what is committed -----------------------------------------------------------------------------------------------


def test_the_page_shows_the_committed_results():
    assert read_table((ROOT / 'docs/results.md').read_text(encoding='utf-8')) == expected_table(COMMITTED)


def test_committed_results_name_configs_and_weights_of_the_repository():
    for row in COMMITTED:
        assert row.keys() == {'config', 'model', 'sha256', 'psnr', 'ssim'}
        assert not Path(row['config']).is_absolute() and (ROOT / row['config']).is_file()
        assert (row['sha256'] is None) == (row['model'] == 'bicubic')


def test_committed_results_are_those_of_the_shipped_weights():
    shipped = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (ROOT / 'pretrained').glob('*.pth')}
    assert {row['model'].rstrip('+'): row['sha256'] for row in COMMITTED if row['sha256']} == shipped


# Another scale shows the same of a model, and takes as long: x4 of each, and x3.7 of the quickest.
CELLS = {f'{Path(row["config"]).stem}-{row["model"]}': row for row in COMMITTED
         if row['config'].endswith('set5-4.yaml') or (row['config'].endswith('set5-3.7.yaml')
                                                      and row['model'] in ('bicubic', 'edsr-baseline-A-liif-pixel'))}
QUICK = 'test-set5-3.7-bicubic', 'test-set5-4-bicubic', 'test-set5-4-edsr-baseline-A-liif-pixel'


@pytest.mark.parametrize('row', [
    pytest.param(row, id=name, marks=[] if name in QUICK else pytest.mark.slow) for name, row in CELLS.items()])
def test_committed_cell_is_what_the_shipped_weights_measure(row, tmp_path, monkeypatch):
    if not BENCHMARK.is_dir():
        pytest.skip(f'{BENCHMARK} is absent')
    weights, ensemble = ROOT / f'pretrained/{row["model"].rstrip("+")}.pth', row['model'].endswith('+')
    (tmp_path / 'load').mkdir()
    (tmp_path / 'load/benchmark').symlink_to(BENCHMARK)
    monkeypatch.chdir(tmp_path)
    found = evaluate(ROOT / row['config'], models.load(weights) if row['sha256'] else models.Bicubic(),
                     self_ensemble=ensemble)
    assert found['psnr'] == pytest.approx(row['psnr'], abs=2e-3)
    assert found['ssim'] == pytest.approx(row['ssim'], abs=2e-4)


# --- how it is made --------------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A filled folder after scripts/results.py, and the lines of its stderr."""
    folder = tmp_path_factory.mktemp('made')
    fill(folder)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as stderr:
        patch.chdir(folder)
        patch.setattr(sys, 'argv', ['results.py', '--gpu', 'cpu', '--sets'])
        results.main()
    return folder, stderr.getvalue().splitlines()


def run(monkeypatch, *args, psnr=20., last=None):
    """scripts/results.py where all PSNR is `psnr`, interrupted after `last` cells: the cells that it measured.

    The figure, which would take long, stays empty.
    """
    cells = []

    def measured(config, model, self_ensemble):
        if len(cells) == last:
            raise KeyboardInterrupt
        cells.append((Path(config).stem, type(model).__name__ + '+' * self_ensemble))
        return {'psnr': psnr, 'ssim': 0.5}

    monkeypatch.setattr(results, 'evaluate', measured)
    monkeypatch.setattr(results, 'draw', lambda *args: Figure())
    monkeypatch.setattr(sys, 'argv', ['results.py', '--gpu', 'cpu', *args])
    with contextlib.suppress(KeyboardInterrupt):
        results.main()
    return cells


def read_rows():
    return json.loads(Path('results/results.json').read_text())


SET5 = [f'test-set5-{scale}' for scale in SCALES]


def test_weights_may_be_safetensors(work, monkeypatch):
    make_checkpoint(work / 'pretrained/other.safetensors', a_liif())
    run(monkeypatch, '--models', 'other', '--sets', 'set5')
    sha256 = hashlib.sha256((work / 'pretrained/other.safetensors').read_bytes()).hexdigest()
    assert [(row['model'], row['sha256']) for row in read_rows()] == [('other', sha256)] * len(SET5)


def test_a_model_of_ones_own_takes_part(work, monkeypatch):
    (work / 'own_decoder.py').write_text(
        'import models\nfrom models.a_liif import ALIIF\n\n\n@models.register("own")\nclass Own(ALIIF):\n    pass\n')
    monkeypatch.syspath_prepend(work)
    weights = torch.load('pretrained/small.pth', weights_only=True)
    torch.save({'model': {**weights['model'], 'name': 'own'}}, 'pretrained/own.pth')
    cells = run(monkeypatch, '--sets', 'set5', '--import', 'own_decoder')
    assert {model for _, model in cells} == {'Bicubic', 'ALIIF', 'Own'}


def test_every_config_and_model_is_measured_as_by_test_py(made, monkeypatch):
    monkeypatch.chdir(made[0])
    rows = read_rows()
    assert [(row['config'], row['model']) for row in rows] == [
        (f'configs/test/{stem}.yaml', model) for stem in SET5 for model in ('bicubic', 'small')]
    assert {row['sha256'] for row in rows} == {
        None, hashlib.sha256(Path('pretrained/small.pth').read_bytes()).hexdigest()}
    row = rows[SET5.index('test-set5-3.7') * 2 + 1]
    expected = evaluate(row['config'], models.load('pretrained/small.pth'))
    assert (row['psnr'], row['ssim']) == (round(expected['psnr'], 4), round(expected['ssim'], 4))


def test_table_stands_between_the_markers_of_the_page(made, monkeypatch):
    monkeypatch.chdir(made[0])
    text = Path('docs/results.md').read_text()
    assert read_table(text) == expected_table(read_rows())
    assert text.startswith(PAGE[:PAGE.index('old')]) and text.endswith(PAGE[PAGE.index('old') + 3:])


def test_figure_is_drawn(made):
    with Image.open(made[0] / 'results/psnr.png') as figure:
        assert figure.format == 'PNG' and len(figure.convert('L').getcolors()) > 10


@pytest.mark.parametrize(('name', 'folder'), [
    ('Set14', 'benchmark/Set14/HR has 3 of 14 images'), ('B100', 'benchmark/B100/HR has 0 of 100 images'),
    ('Urban100', 'benchmark/Urban100/HR'), ('DIV2K', 'div2k/DIV2K_valid_HR'), ('photos2k', 'photos2k/valid_HR')])
def test_set_that_is_not_whole_gives_one_line(made, name, folder):
    line, = [line for line in made[1] if name in line and 'is left out' in line]
    assert f'load/{folder}' in line


@pytest.mark.parametrize('given, passed_on', [
    ('', '--gpu 0 --sets'), ('cpu', '--gpu cpu --sets'), ('cpu set5 --fresh', '--gpu cpu --sets set5 --fresh'),
    ('--fresh', '--gpu 0 --sets --fresh')])
def test_one_command_runs_results_and_then_figures(tmp_path, given, passed_on):
    (tmp_path / 'scripts').symlink_to(ROOT / 'scripts')
    (tmp_path / 'python').write_text('#!/bin/sh\necho "$*" >> calls\n')
    (tmp_path / 'python').chmod(0o755)
    subprocess.run(['bash', tmp_path / 'scripts/reproduce_results.sh', *given.split()], check=True,
                   env={**os.environ, 'PATH': f'{tmp_path}:{os.environ["PATH"]}'})
    gpu = ' '.join(passed_on.split()[:2])
    assert (tmp_path / 'calls').read_text().splitlines() == [
        f'scripts/results.py {passed_on}', f'scripts/figures.py {gpu}']


def test_asked_for_help_it_tells_how_it_is_used():
    told = subprocess.run(['bash', ROOT / 'scripts/reproduce_results.sh', '--help'], check=True, capture_output=True)
    assert b'bash scripts/reproduce_results.sh cpu set5 set14' in told.stdout and b'--fresh' in told.stdout


def test_what_is_measured_is_not_measured_again(work, monkeypatch):
    assert len(run(monkeypatch)) == 2 * len(SET5)
    assert run(monkeypatch) == []


def test_fresh_measures_all_again(work, monkeypatch):
    run(monkeypatch, psnr=20.)
    assert len(run(monkeypatch, '--fresh', psnr=30.)) == 2 * len(SET5)
    assert {row['psnr'] for row in read_rows()} == {30}


def test_it_says_what_was_kept_and_what_measured(work, monkeypatch, capsys):
    run(monkeypatch, last=3)
    capsys.readouterr()
    run(monkeypatch)
    assert capsys.readouterr().out.splitlines()[-1] == (
        f'{2 * len(SET5) - 3} results measured, 3 kept, of weights that have not changed since (results/results.json); '
        '--fresh measures all')


def test_what_another_process_measured_meanwhile_stays(work, monkeypatch):
    measure = results.measure

    def slow(names, found, *_):
        monkeypatch.setattr(results, 'measure', measure)
        assert len(run(monkeypatch, '--sets', 'set5')) == 2 * len(SET5)
        found['configs/test/test-set14-2.yaml', 'bicubic'] = {
            'config': 'configs/test/test-set14-2.yaml', 'model': 'bicubic', 'sha256': None, 'psnr': 20., 'ssim': 0.5}
        return 0, 1

    monkeypatch.setattr(results, 'measure', slow)
    run(monkeypatch)
    assert len(read_rows()) == 2 * len(SET5) + 1
    assert len(read_table((work / 'docs/results.md').read_text())) == 2 * len(SET5) + 1


def test_the_self_ensemble_is_measured_where_it_is_named_and_kept(work, monkeypatch):
    run(monkeypatch)
    assert run(monkeypatch, '--models', 'small+', psnr=30.) == [(stem, 'ALIIF+') for stem in SET5]
    assert run(monkeypatch) == []
    cells = read_table((work / 'docs/results.md').read_text())
    assert (cells['Set5', 'small', '2'], cells['Set5', 'small+', '2']) == ('20.00', '30.00')
    with pytest.raises(UserError, match="unknown model 'smal'"):
        run(monkeypatch, '--models', 'smal')


def test_outside_the_repository_there_are_no_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='configs/test has no test configs of set5 here: run it in the repository'):
        run(monkeypatch, '--sets', 'set5')


def test_new_weights_are_measured_and_bicubic_stays(work, monkeypatch):
    run(monkeypatch, psnr=20.)
    make_checkpoint(work / 'pretrained/small.pth', a_liif(), seed=1)
    assert run(monkeypatch, psnr=30.) == [(stem, 'ALIIF') for stem in SET5]
    assert {(row['model'], row['psnr']) for row in read_rows()} == {('bicubic', 20), ('small', 30)}


def test_results_of_weights_that_are_gone_are_dropped(work, monkeypatch):
    run(monkeypatch)
    (work / 'pretrained/small.pth').unlink()
    run(monkeypatch)
    assert {row['model'] for row in read_rows()} == {'bicubic'}
    assert 'small' not in (work / 'docs/results.md').read_text()


def test_interrupted_run_keeps_what_it_has_and_shows_a_dash_for_the_rest(work, monkeypatch):
    run(monkeypatch, last=3)
    text = (work / 'docs/results.md').read_text()
    assert read_table(text) == {('Set5', 'bicubic', '2'): '20.00', ('Set5', 'small', '2'): '20.00',
                                ('Set5', 'bicubic', '2.5'): '20.00'}
    assert text.count('–') == 2 * len(SCALES) - 3
    assert run(monkeypatch)[0] == ('test-set5-2.5', 'ALIIF')


def test_sets_that_are_named_are_measured_alone(work, monkeypatch):
    shutil.copytree('load/benchmark/Set5/HR', 'load/photos2k/valid_HR')
    shutil.copy('load/benchmark/Set5/HR/0.png', 'load/photos2k/valid_HR/5.png')
    assert {stem for stem, _ in run(monkeypatch, '--sets', 'set14', 'set5')} == set(SET5)
    assert {stem for stem, _ in run(monkeypatch)} == {f'test-photos2k-{scale}' for scale in (6, 12, 18, 24, 30)}


@pytest.mark.parametrize('text', ['no markers', '<!-- /results --> <!-- results -->', PAGE + PAGE])
def test_page_without_one_place_for_the_table_is_an_error(tmp_path, monkeypatch, text):
    monkeypatch.setattr(output, 'PAGE', tmp_path / 'results.md')
    output.PAGE.write_text(text)
    with pytest.raises(UserError, match='results.md: must have <!-- results --> and <!-- /results --> once'):
        output.update_page('results', 'table')
    assert output.PAGE.read_text() == text
