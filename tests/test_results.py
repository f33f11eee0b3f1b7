"""The committed results are those of the shipped weights, and how the scripts make them, their table and pictures."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from specs import a_liif

import models
from errors import UserError
from evaluation import evaluate
from scripts import figures, results

ROOT = Path(__file__).resolve().parents[1]
BENCHMARK = ROOT.parent / 'shared' / 'data' / 'benchmark'
COMMITTED = json.loads((ROOT / 'results/results.json').read_text())
SCALES = ['2', '2.5', '3', '3.7', '4', '6', '8']
TITLES = {'set5': 'Set5', 'set14': 'Set14', 'b100': 'B100', 'urban100': 'Urban100', 'div2k': 'DIV2K',
          'photos2k': 'photos2k'}
PAGE = '# Title\n\nbefore\n\n<!-- results -->\nold\n<!-- /results -->\n\nafter \\1\n'


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


# --- what is committed ---------------------------------------------------------------------------------------------


def test_readme_shows_the_committed_results():
    assert read_table((ROOT / 'docs/results.md').read_text(encoding='utf-8')) == expected_table(COMMITTED)


def test_committed_results_name_configs_and_weights_of_the_repository():
    for row in COMMITTED:
        assert row.keys() == {'config', 'model', 'sha256', 'psnr', 'ssim'}
        assert not Path(row['config']).is_absolute() and (ROOT / row['config']).is_file()
        assert (row['sha256'] is None) == (row['model'] == 'bicubic')


def test_committed_results_are_those_of_the_shipped_weights():
    shipped = {path.stem: hashlib.sha256(path.read_bytes()).hexdigest() for path in (ROOT / 'pretrained').glob('*.pth')}
    assert {row['model']: row['sha256'] for row in COMMITTED if row['sha256']} == shipped


@pytest.mark.parametrize('row', [row for row in COMMITTED if row['config'].endswith(('set5-3.7.yaml', 'set5-4.yaml'))],
                         ids=lambda row: f'{Path(row["config"]).stem}-{row["model"]}')
def test_committed_cell_is_what_the_shipped_weights_measure(row, tmp_path, monkeypatch):
    if not BENCHMARK.is_dir():
        pytest.skip(f'{BENCHMARK} is absent')
    weights = ROOT / f'pretrained/{row["model"]}.pth'
    (tmp_path / 'load').mkdir()
    (tmp_path / 'load/benchmark').symlink_to(BENCHMARK)
    monkeypatch.chdir(tmp_path)
    found = evaluate(ROOT / row['config'], models.load(weights) if row['sha256'] else models.Bicubic())
    assert found['psnr'] == pytest.approx(row['psnr'], abs=2e-3)
    assert found['ssim'] == pytest.approx(row['ssim'], abs=2e-4)


# --- how it is made ------------------------------------------------------------------------------------------------


def write_weights(path, seed):
    torch.manual_seed(seed)
    spec = a_liif()
    models.checkpoint.write({'model': {**spec, 'sd': models.make(spec).state_dict()}}, path)


def fill(folder):
    """Puts into `folder` the repository's configs, a small model, Set5, a part of Set14, and a page."""
    for name in ('configs', 'scripts'):
        (folder / name).symlink_to(ROOT / name)
    (folder / 'pretrained').mkdir()
    write_weights(folder / 'pretrained/small.pth', seed=0)
    for name, count in (('Set5', 5), ('Set14', 3)):
        images = folder / f'load/benchmark/{name}/HR'
        images.mkdir(parents=True)
        for i in range(count):
            noise = Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8))
            noise.resize((60, 50), Image.BICUBIC).save(images / f'{i}.png')
    (folder / 'docs').mkdir()
    (folder / 'docs/results.md').write_text(PAGE)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A filled folder after `bash scripts/reproduce_results.sh cpu`, and the run."""
    folder = tmp_path_factory.mktemp('made')
    fill(folder)
    env = {**os.environ, 'PATH': f'{Path(sys.executable).parent}:{os.environ["PATH"]}', 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(['bash', folder / 'scripts/reproduce_results.sh', 'cpu'], cwd='/', env=env,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder, done


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A filled folder as the working directory."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch, *args, psnr=20., last=None):
    """scripts/results.py where all PSNR is `psnr`, interrupted after `last` cells: the cells that it measured."""
    cells = []

    def measured(config, model):
        if len(cells) == last:
            raise KeyboardInterrupt
        cells.append((Path(config).stem, type(model).__name__))
        return {'psnr': psnr, 'ssim': 0.5}

    monkeypatch.setattr(results, 'evaluate', measured)
    monkeypatch.setattr(sys, 'argv', ['results.py', '--gpu', 'cpu', *args])
    with contextlib.suppress(KeyboardInterrupt):
        results.main()
    return cells


def read_rows():
    return json.loads(Path('results/results.json').read_text())


SET5 = [f'test-set5-{scale}' for scale in SCALES]


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


def test_table_stands_between_the_markers_of_the_readme(made, monkeypatch):
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
    line, = [line for line in made[1].stderr.splitlines() if name in line and 'is left out' in line]
    assert f'load/{folder}' in line


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


def test_outside_the_repository_there_are_no_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='configs/test has no test configs of set5 here: run it in the repository'):
        run(monkeypatch, '--sets', 'set5')


def test_new_weights_are_measured_and_bicubic_stays(work, monkeypatch):
    run(monkeypatch, psnr=20.)
    write_weights(work / 'pretrained/small.pth', seed=1)
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
def test_page_without_one_place_for_the_table_is_an_error(text):
    with pytest.raises(UserError, match='docs/results.md: must have <!-- results --> and <!-- /results --> once'):
        results.insert(text, 'results', 'table')


# --- pictures ------------------------------------------------------------------------------------------------------


def panel(sheet, column, row):
    """The crop in a sheet whose panels are 20 pixels long, 8 apart, above a caption of 28."""
    left, top = 28 * column, 56 * row
    return np.asarray(sheet, dtype=float)[top:top + 20, left:left + 20]


def parts(photos):
    return [figures.Part(str(photos), 2, 24, 16, 10, scale) for scale in (4, 3.7)]


def test_crops_show_reduced_photo_models_and_truth_at_each_scale(work):
    photos = work / 'load/benchmark/Set5/HR'
    sheet = figures.crops(['bicubic', 'small'], parts(photos), 20, torch.device('cpu'))
    photo = Image.open(photos / '2.png')
    for row, (width, height, scale) in enumerate(((15, 12, 4), (16, 13, 3.7))):
        size = round(width * scale), round(height * scale)
        low = photo.crop((0, 0, *size)).resize((width, height), Image.BICUBIC)
        bicubic = low.resize(size, Image.BICUBIC)
        for column, image in ((1, bicubic), (3, photo)):
            expected = image.crop((24, 16, 34, 26)).resize((20, 20), Image.NEAREST)
            np.testing.assert_allclose(panel(sheet, column, row), np.asarray(expected), atol=1)
        shown = panel(sheet, 0, row)
        assert np.array_equal(shown[6, 6], np.asarray(low)[int(19.5 / scale), int(27.5 / scale)])
        assert np.ptp(panel(sheet, 2, row)) < 255 and not np.array_equal(panel(sheet, 2, row), shown)


def test_a_part_that_is_larger_than_it_is_shown_is_reduced(work):
    photos = work / 'load/benchmark/Set5/HR'
    part = figures.Part(str(photos), 2, 0, 0, 40, 4)
    sheet = figures.crops(['bicubic'], [part], 20, torch.device('cpu'))
    truth = Image.open(photos / '2.png').crop((0, 0, 40, 40)).resize((20, 20), Image.LANCZOS)
    np.testing.assert_allclose(panel(sheet, 2, 0), np.asarray(truth), atol=1)


def test_psnr_below_a_crop_is_that_of_its_luma(work, monkeypatch):
    captions = []
    monkeypatch.setattr(figures, 'sheet', lambda panels, columns: captions.extend(c for c, *_ in panels))
    photos = work / 'load/benchmark/Set5/HR'
    figures.crops(['bicubic', 'small'], parts(photos), 20, torch.device('cpu'))
    photo = Image.open(photos / '2.png').crop((0, 0, 60, 48))
    images = photo, photo.resize((15, 12), Image.BICUBIC).resize((60, 48), Image.BICUBIC)
    y = [np.asarray(image, float)[16:26, 24:34] @ [65.738, 129.057, 25.064] / 256 for image in images]
    psnr = 20 * np.log10(255) - 10 * np.log10(np.mean((y[0] - y[1]) ** 2))
    assert captions[0] == 'LR, x4' and captions[3] == 'truth' and captions[4] == 'LR, x3.7'
    assert captions[1] == f'bicubic {psnr:.2f}' and captions[2].startswith('small ')


def test_mixing_weights_are_shown_at_the_size_of_the_reduced_photo(work, monkeypatch):
    monkeypatch.setattr(figures, 'MIXED', (str(work / 'load/benchmark/Set5/HR'), 0, 2))
    monkeypatch.setattr(figures, 'OURS', 'pretrained/small.pth')
    sheet = figures.weights(torch.device('cpu'))
    assert sheet.size == (4 * 30 + 3 * 8, 2 * (25 + 28) + 8)  # input, which rules, and three functions
    reduced = Image.open(work / 'load/benchmark/Set5/HR/0.png').resize((30, 25), Image.BICUBIC)
    assert np.array_equal(np.asarray(sheet)[:25, :30], np.asarray(reduced))


def test_pictures_of_photos_that_are_absent_are_told_and_not_made(work, monkeypatch, capsys):
    shutil.rmtree('load')
    monkeypatch.setattr(sys, 'argv', ['figures.py', '--gpu', 'cpu'])
    figures.main()
    assert [line.split(':')[0] for line in capsys.readouterr().err.splitlines()] == [
        f'results/{name}.png is not made' for name in ('photos', 'crops', 'weights')]
    assert not Path('results').exists()
