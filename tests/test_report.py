"""The page that test.py --report writes: its numbers, names and pictures."""

import base64
import html
import io
import json
import math
import re

import numpy as np
import pytest
import torch
import yaml
from photos import write_images
from PIL import Image
from reports import NAMES, SCALES, SIZE, run, write_configs

from errors import UserError
from scripts import report


@pytest.fixture(scope='module')
def page(report_folder):
    return (report_folder / 'out' / 'index.html').read_text(encoding='utf-8')


def table(page, name):
    """The texts of a table's cells, row by row, without its head."""
    body = re.search(rf'<table id="{name}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    return [[html.unescape(re.sub('<[^>]*>', '', cell)).strip() for cell in re.split('</t[hd]>', row)[:-1]]
            for row in body.split('<tr>')[1:]]


def numbers(ours, bicubic):
    return [f'{bicubic["psnr"]:.2f}', f'{ours["psnr"]:.2f}', f'{ours["psnr"] - bicubic["psnr"]:+.2f}',
            f'{bicubic["ssim"]:.4f}', f'{ours["ssim"]:.4f}']


def test_the_tables_hold_the_numbers_of_the_model_and_of_bicubic(report_folder, page):
    results = [json.loads((report_folder / f'{name}.json').read_text())['results'] for name in ('ours', 'bicubic')]
    pairs = list(zip(*results, strict=True))
    assert table(page, 'sets') == [
        [f'<i>set-{scale}', str(scale), '2', *numbers(*pair)] for scale, pair in zip(SCALES, pairs, strict=True)]
    assert sorted(table(page, 'images')) == sorted(
        [name, f'<i>set-{scale}', str(scale), *numbers(ours['images'][i], bicubic['images'][i])]
        for scale, (ours, bicubic) in zip(SCALES, pairs, strict=True)
        for i, name in enumerate(sorted(NAMES)) if ours['images'][i]['image'] == name)


def test_names_are_text_and_never_markup(page):
    assert '<i>' not in page and '<b>&' not in page
    assert '&lt;b&gt;&amp;&#34;c.png' in page and '&lt;i&gt;set-2' in page


def test_configs_model_machine_and_date_are_told(report_folder, page):
    shown = html.unescape(page)
    configs = [yaml.safe_load(path.read_text()) for path in report_folder.glob('*.yaml')]
    assert all(yaml.safe_dump(config, sort_keys=False) in shown for config in configs)
    run = dict(re.findall('<dt>(.*?)</dt><dd>(.*?)</dd>', shown))
    assert run['Model'] == str(report_folder / 'model.pth')
    assert 'ALIIF' in run['Architecture'] and 'EDSRBaseline' in run['Architecture']
    assert torch.__version__ in run['Software'] and run['Machine']
    assert run['Device'].endswith(f', {torch.get_num_threads()} threads')
    assert re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d', run['Date'])


def test_a_config_deleted_while_the_model_is_measured_is_reported_all_the_same(tmp_path, monkeypatch):
    write_images(tmp_path / 'images', NAMES, SIZE)
    config, = write_configs(tmp_path, tmp_path / 'images', [2])
    keep = report.Report.keep_ours
    monkeypatch.setattr(report.Report, 'keep_ours', lambda *args: (keep(*args), config.unlink(missing_ok=True)))
    run('--config', config, '--model', 'bicubic', '--report', tmp_path / 'report')
    assert len(table((tmp_path / 'report/index.html').read_text(), 'images')) == 2


def test_a_config_is_told_as_it_was_used(report_folder, tmp_path):
    run('--config', next(report_folder.glob('*-2.yaml')), '--model', 'bicubic', '--report', tmp_path / 'report',
        '--set', 'eval_type=benchmark-3', '--set', 'test_dataset.wrapper.args.scale_min=3')
    page = (tmp_path / 'report/index.html').read_text()
    assert [row[1] for row in table(page, 'sets')] == ['3'] and 'eval_type: benchmark-3' in page


def test_the_pictures_are_bicubic_prediction_and_truth_of_each_image_without_loss(report_folder, page):
    uris = re.findall(r'src="data:image/webp;base64,([^"]*)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]
    assert len(shown) == 3 * len(SCALES) * len(NAMES)
    for name in NAMES:
        truth = Image.open(report_folder / 'images' / name)
        bicubic = truth.resize((30, 22), Image.BICUBIC).resize(SIZE, Image.BICUBIC)
        assert [i % 3 for i, image in enumerate(shown) if np.array_equal(image, truth)] == [2]
        assert [i % 3 for i, image in enumerate(shown) if np.array_equal(image, bicubic)] == [0]


def test_there_is_a_chart_with_both_curves_in_the_pages_own_colours(page):
    chart, = re.findall('<svg.*?</svg>', page, re.DOTALL)
    assert all(text in chart for text in ('Ours', 'Bicubic', '×2', '×3', 'PSNR (dB)', 'var(--accent)', 'var(--muted)'))
    assert not re.findall('#0[1234]0', chart)


def test_an_infinite_psnr_is_shown_by_a_word_and_gains_nothing_over_another(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', SIZE, 'red').save(tmp_path / 'images/red.png')
    Image.new('RGB', (60, 4), 'red').save(tmp_path / 'images/tiny.png')
    run('--config', *write_configs(tmp_path, tmp_path / 'images', SCALES), '--model', 'bicubic', '--report', tmp_path)
    page = (tmp_path / 'index.html').read_text(encoding='utf-8')
    assert [row[3:] for row in table(page, 'sets')] == [['infinite', 'infinite', '+0.00', '1.0000', '1.0000']] * 2
    assert [row[3:] for row in table(page, 'images') if row[0] == 'tiny.png'] == [['none'] * 5] * 2
    assert not re.search(r'\b(nan|inf)\b', page.split('<script>')[0])


def test_a_chart_leaves_out_an_infinite_psnr_and_keeps_its_curve():
    psnr = {2: 40., 3: math.inf, 4: 36., 6: 30.}
    svg = report.chart([{'scale': scale, 'ours': {'psnr': value}, 'bicubic': {'psnr': 30. - scale}}
                        for scale, value in psnr.items()])
    curve, = re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--accent\)[^>]*stroke-linecap: square', svg)[:1]
    assert curve.count('M') == 1 and curve.count('L') == 2
    assert all(f'×{scale}' in svg for scale in psnr)


def test_test_sets_that_are_reduced_in_other_ways_have_charts_of_their_own():
    dataset, name = {'name': 'image-folder', 'args': {'root_path': 'photos'}}, 'sr-implicit-downsampled'
    keys = [report.data_key({'dataset': dataset, 'wrapper': {'name': name, 'args': args}, 'batch_size': size})
            for args, size in (({'scale_min': 2}, 1), ({'scale_min': 3, 'scale_max': 3}, 2),
                               ({'scale_min': 2, 'reduction': 'matlab'}, 1))]
    assert keys[0] == keys[1] != keys[2]


def test_large_images_show_their_centre_and_the_page_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, 'SIDE', 40)
    write_images(tmp_path / 'images', ['large.png'], SIZE)
    run('--config', *write_configs(tmp_path, tmp_path / 'images', [2]), '--model', 'bicubic', '--report', tmp_path)
    page = (tmp_path / 'index.html').read_text()
    assert 'centre of 40×40 of 60×44 pixels' in page
    truth = Image.open(io.BytesIO(base64.b64decode(re.findall('base64,([^"]*)"', page)[2])))
    assert np.array_equal(truth, np.asarray(Image.open(tmp_path / 'images' / 'large.png'))[2:42, 10:50])


def test_pictures_are_cut_until_all_fit_the_budget(monkeypatch):
    noise = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    pictures = [{'full_size': (96, 64), **{name: report.picture(noise) for name in ('bicubic', 'ours', 'truth')}}
                for _ in range(4)]
    monkeypatch.setattr(report, 'BUDGET', 60_000)
    report.fit(pictures)
    kept = [p[name] for p in pictures for name in ('bicubic', 'ours', 'truth')]
    assert 50_000 < sum(map(len, kept)) < 66_000
    width, height = Image.open(io.BytesIO(kept[0])).size
    assert pictures[0]['size'] == (width, height) and pictures[0]['cropped'] and abs(width / height - 1.5) < 0.05


def test_a_report_cannot_go_where_a_file_is(tmp_path):
    (tmp_path / 'out').touch()
    with pytest.raises(UserError, match='out: is a file'):
        report.Report(tmp_path / 'out')


def test_a_page_that_cannot_be_written_is_told_before_anything_is_measured(tmp_path):
    (tmp_path / 'out/index.html').mkdir(parents=True)
    with pytest.raises(UserError, match='out/index.html: is a folder'):
        report.Report(tmp_path / 'out')
