"""The page that test.py --report writes: its numbers and names, and how it works in a browser without a network."""

import base64
import html
import io
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from specs import a_liif

import models
import test
from errors import UserError
from scripts import report

SCALES, NAMES = (2, 3), ('a.png', '<b>&"c.png')
SIZE = 60, 44  # width and height, which both scales divide


def write_configs(folder, root, scales):
    """Test configs <i>set-2.yaml, ... in `folder` for the images in `root`."""
    paths = [folder / f'<i>set-{scale}.yaml' for scale in scales]
    for path, scale in zip(paths, scales, strict=True):
        path.write_text(yaml.safe_dump({'eval_type': f'benchmark-{scale}', 'test_dataset': {
            'dataset': {'name': 'image-folder', 'args': {'root_path': str(root)}},
            'wrapper': {'name': 'sr-implicit-downsampled', 'args': {'scale_min': scale}}, 'batch_size': 1}}))
    return paths


def write_images(root, names, size):
    root.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        noise = Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8))
        noise.resize(size, Image.BICUBIC).save(root / name)


def run(*args):
    """test.py with `args`, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['test.py', *map(str, args), '--gpu', 'cpu'])
        test.main()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with out/index.html, the report on two configs of two images, and the runs' numbers as JSON."""
    folder = tmp_path_factory.mktemp('report')
    write_images(folder / 'images', NAMES, SIZE)
    configs = write_configs(folder, folder / 'images', SCALES)
    torch.manual_seed(0)
    spec = a_liif()
    models.checkpoint.write({'model': {**spec, 'sd': models.make(spec).state_dict()}}, folder / 'model.pth')
    evaluate = '--config', *configs, '--model'
    run(*evaluate, folder / 'model.pth', '--json', folder / 'ours.json', '--report', folder / 'out')
    run(*evaluate, 'bicubic', '--json', folder / 'bicubic.json')
    return folder


@pytest.fixture(scope='module')
def page(folder):
    return (folder / 'out' / 'index.html').read_text(encoding='utf-8')


def table(page, name):
    """The texts of a table's cells, row by row, without its head."""
    body = re.search(rf'<table id="{name}">.*?<tbody>(.*?)</tbody>', page, re.DOTALL)[1]
    return [[html.unescape(re.sub('<[^>]*>', '', cell)).strip() for cell in re.split('</t[hd]>', row)[:-1]]
            for row in body.split('<tr>')[1:]]


def numbers(ours, bicubic):
    return [f'{bicubic["psnr"]:.2f}', f'{ours["psnr"]:.2f}', f'{ours["psnr"] - bicubic["psnr"]:+.2f}',
            f'{bicubic["ssim"]:.4f}', f'{ours["ssim"]:.4f}']


# --- what the page holds -------------------------------------------------------------------------------------------


def test_the_tables_hold_the_numbers_of_the_model_and_of_bicubic(folder, page):
    results = [json.loads((folder / f'{name}.json').read_text())['results'] for name in ('ours', 'bicubic')]
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


def test_configs_model_machine_and_date_are_told(folder, page):
    shown = html.unescape(page)
    configs = [yaml.safe_load(path.read_text()) for path in folder.glob('*.yaml')]
    assert all(yaml.safe_dump(config, sort_keys=False) in shown for config in configs)
    run = dict(re.findall('<dt>(.*?)</dt><dd>(.*?)</dd>', shown))
    assert run['Model'] == str(folder / 'model.pth')
    assert 'ALIIF' in run['Architecture'] and 'EDSRBaseline' in run['Architecture']
    assert torch.__version__ in run['Software'] and run['Machine']
    assert run['Device'].endswith(f', {torch.get_num_threads()} threads')
    assert re.match(r'\d{4}-\d\d-\d\d \d\d:\d\d', run['Date'])


def test_a_config_is_told_as_it_was_used(folder, tmp_path):
    run('--config', next(folder.glob('*-2.yaml')), '--model', 'bicubic', '--report', tmp_path / 'report',
        '--set', 'eval_type=benchmark-3', '--set', 'test_dataset.wrapper.args.scale_min=3')
    page = (tmp_path / 'report/index.html').read_text()
    assert [row[1] for row in table(page, 'sets')] == ['3'] and 'eval_type: benchmark-3' in page


def test_the_pictures_are_bicubic_prediction_and_truth_of_each_image_without_loss(folder, page):
    uris = re.findall(r'src="data:image/webp;base64,([^"]*)"', page)
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(uri)))) for uri in uris]
    assert len(shown) == 3 * len(SCALES) * len(NAMES)
    for name in NAMES:
        truth = Image.open(folder / 'images' / name)
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


# --- the page in a browser -----------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    if not (shutil.which('chromium') and shutil.which('chromedriver')):
        pytest.skip('chromium and chromedriver are not installed')
    webdriver = pytest.importorskip('selenium.webdriver')
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which('chromium')
    for flag in ('headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run', 'disable-sync',
                 'disable-background-networking', 'disable-component-update', 'disable-dev-shm-usage',
                 'window-size=1280,900', f'user-data-dir={tmp_path_factory.mktemp("chromium")}'):
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which('chromedriver')))
    yield driver
    driver.quit()


@pytest.fixture
def browser(chromium, folder):
    """Chromium, the page freshly loaded in it."""
    for log in ('browser', 'performance'):
        chromium.get_log(log)
    chromium.get((folder / 'out' / 'index.html').as_uri())
    return chromium


def elements(parent, selector):
    return parent.find_elements('css selector', selector)


def send(element, *keys):
    from selenium.webdriver.common.keys import Keys
    element.send_keys(*(getattr(Keys, key, key) for key in keys))


def clip(layer):
    """How many percent of a picture are cut off at the left."""
    return float(re.search(r'([\d.]+)%', layer.value_of_css_property('clip-path').split()[-1])[1])


def views(browser):
    """Which part of its picture each image shows: left, top and width, in widths of what is shown."""
    return [tuple(round(n, 4) for n in view) for view in browser.execute_script('''
        return [...document.querySelectorAll('.viewer img')].map(image => {
          const all = image.getBoundingClientRect(), seen = image.closest('.viewer').getBoundingClientRect()
          return [(seen.x - all.x) / seen.width, (seen.y - all.y) / seen.height, all.width / seen.width]
        })''')]


def test_it_loads_without_a_console_message_or_a_request(browser):
    assert all(browser.execute_script('return [...document.images].map(image => image.naturalWidth > 0)'))
    assert browser.get_log('browser') == []
    events = [json.loads(entry['message'])['message'] for entry in browser.get_log('performance')]
    requests = [event['params'] for event in events if event['method'] == 'Network.requestWillBeSent']
    urls = {request['request']['url'] for request in requests if request['documentURL'] == browser.current_url}
    assert {url for url in urls if not url.startswith('data:')} == {browser.current_url}


def test_a_handle_moves_the_cut_between_two_pictures(browser):
    viewer = elements(browser, '.viewer')[0]
    (_, ours, truth), (handle, _) = elements(viewer, '.layer'), elements(viewer, '.handle')
    assert (clip(ours), clip(truth)) == pytest.approx((33.5, 66.5), abs=1)
    send(handle, *['ARROW_RIGHT'] * 10)
    assert (clip(ours), clip(truth)) == pytest.approx((38.5, 66.5), abs=1)


def test_a_handle_is_dragged_to_where_the_pointer_is(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[0]
    width, truth = viewer.size['width'], elements(viewer, '.layer')[2]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    ActionChains(browser).move_to_element_with_offset(viewer, round(width / 6), 0).click_and_hold() \
        .move_by_offset(round(width / 4), 0).release().perform()
    assert clip(truth) == pytest.approx(100 * (1 / 2 + 1 / 6 + 1 / 4), abs=2)


def test_a_handle_pushes_the_other_one_before_it(browser):
    viewer = elements(browser, '.viewer')[0]
    (_, ours, truth), (handle, _) = elements(viewer, '.layer'), elements(viewer, '.handle')
    send(handle, 'END')
    assert (clip(ours), clip(truth)) == (100, 100)


def test_zoom_is_the_same_for_all_pictures_of_an_image_and_leaves_others_alone(browser):
    assert set(views(browser)) == {(0, 0, 1)}
    send(elements(browser, '.zoom')[0], *['ARROW_RIGHT'] * 2)  # half a step each: twice the size
    first, others = views(browser)[:6], views(browser)[6:]  # two scales of three pictures
    assert set(first) == {(0.5, 0.5, 2)} and set(others) == {(0, 0, 1)}


def test_a_double_click_zooms_in_where_it_is_and_the_next_one_out(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[1]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    at = round(-0.4 * viewer.size['width'])
    ActionChains(browser).move_to_element_with_offset(viewer, at, 0).double_click().perform()
    left, top, width = views(browser)[0]
    assert width == 4 and left == pytest.approx((0.5 + at / viewer.size['width']) * 3, abs=0.02)
    assert len(set(views(browser)[:6])) == 1
    ActionChains(browser).move_to_element_with_offset(viewer, at, 0).double_click().perform()
    assert set(views(browser)) == {(0, 0, 1)}


def test_a_zoomed_picture_is_moved_by_dragging_and_by_keys_up_to_its_border(browser):
    from selenium.webdriver.common.action_chains import ActionChains
    viewer = elements(browser, '.viewer')[0]
    browser.execute_script('arguments[0].scrollIntoView()', viewer)
    send(viewer, '+', '+')
    left, top, width = views(browser)[0]
    ActionChains(browser).move_to_element(viewer).click_and_hold().move_by_offset(30, 0).release().perform()
    dragged = views(browser)[0]
    assert dragged == pytest.approx((left - 30 / viewer.size['width'], top, width), abs=0.01)
    send(viewer, *['ARROW_UP'] * 30)
    assert views(browser)[0] == pytest.approx((dragged[0], 0, width), abs=0.01)
    assert len(set(views(browser)[:6])) == 1


@pytest.mark.parametrize('name, column, key', [('images', 0, str), ('images', 4, float), ('images', 5, float),
                                               ('sets', 1, float)])
def test_a_click_on_a_heading_sorts_and_the_next_one_sorts_backwards(browser, name, column, key):
    heading = elements(browser, f'#{name} thead th')[column]

    def shown():
        return [key(row.text) for row in elements(browser, f'#{name} tbody tr > :nth-child({column + 1})')]

    send(elements(heading, 'button')[0], 'ENTER')
    assert shown() == sorted(shown()) and heading.get_attribute('aria-sort') == 'ascending'
    ascending = shown()
    send(elements(heading, 'button')[0], 'ENTER')
    assert shown() == ascending[::-1] and heading.get_attribute('aria-sort') == 'descending'
    assert len(elements(browser, f'#{name} [aria-sort]')) == 1


def test_a_phone_needs_no_sideways_scrolling(browser):
    browser.execute_cdp_cmd('Emulation.setDeviceMetricsOverride',
                            {'width': 360, 'height': 740, 'deviceScaleFactor': 2, 'mobile': True})
    assert browser.execute_script('return document.documentElement.scrollWidth') == 360
    browser.execute_cdp_cmd('Emulation.clearDeviceMetricsOverride', {})


def test_it_follows_the_systems_dark_theme(browser):
    def brightness():
        color = elements(browser, 'body')[0].value_of_css_property('background-color')
        return sum(map(int, re.findall(r'\d+', color)[:3])) / 3

    shades = {}
    for theme in ('light', 'dark'):
        browser.execute_cdp_cmd('Emulation.setEmulatedMedia',
                                {'features': [{'name': 'prefers-color-scheme', 'value': theme}]})
        shades[theme] = brightness()
    assert shades['light'] > 200 and shades['dark'] < 60
