"""Tables that are typed into pages of docs/ by hand show the numbers of the files in results/."""

import json
import re

import pytest
from paths import ROOT

from scripts.edges import band_names

NUMBER = re.compile(r'\**(-?[\d.]+)(%?)\**')
TOLD = {'x2 twice': 'x2 of x2'}  # what docs/edges.md calls the pairs in consistency.json


def read(name):
    return json.loads((ROOT / f'results/{name}.json').read_text(encoding='utf-8'))


def cells(page):
    """The numbers in the tables of a page of docs/: what heads the table, the column and the row, and the number."""
    text = (ROOT / f'docs/{page}.md').read_text(encoding='utf-8')
    for table in re.findall(r'(?:^\|.*\n)+', text, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip('|').split('|')] for line in table.splitlines())
        for row in rows:
            named = [cell for cell in row if not NUMBER.fullmatch(cell)]
            yield from ((head[0], column, ', '.join(named), cell)
                        for column, cell in zip(head, row, strict=True) if NUMBER.fullmatch(cell))


def assert_shows(cell, value):
    """Asserts that `cell` is the `value`, rounded, which may have been rounded before."""
    digits, percent = NUMBER.fullmatch(cell).groups()
    last = 10 ** -len(digits.partition('.')[2])
    assert float(digits) == pytest.approx(value * (100 if percent else 1), abs=0.55 * last)


def named_in(texts, names):
    """The longest of the `names` that one of the `texts` holds, in capitals or not; None if there is none."""
    found = [name for name in names if name.lower() in '\n'.join(texts).lower()]
    return max(found, key=len, default=None)


def edges_value(rows, texts):
    """The number in edges.json that stands in a table below these headings."""
    models = {row['model'].removeprefix('edsr-baseline-'): row['model'] for row in rows}
    scales = {f'x{row["scale"]}': row['scale'] for row in rows}
    only = next(iter(scales)) if len(scales) == 1 else None
    wanted = (named_in(texts, {row['set'] for row in rows}), models[named_in(texts[1:], models)],
              scales[named_in(texts, scales) or only])
    row, = (row for row in rows if (row['set'], row['model'], row['scale']) == wanted)
    quantity = named_in(texts, ('error', 'overshoot', 'ringing'))
    column = texts[1].removesuffix(' px')
    return row[quantity][band_names().index(column)] if column in band_names() else row[f'{quantity}_of_all']


def agreement(rows, texts):
    """The number in consistency.json that stands in a table below these headings."""
    row, = (row for row in rows if row['photo'] == texts[1])
    pair = texts[2].split(', or')[0].removeprefix('in ')
    return row['agreement'][TOLD.get(pair, pair)]


def test_the_page_on_edges_shows_what_was_measured():
    edges, consistency = read('edges'), read('consistency')
    photos = {row['photo'] for row in consistency}
    found = [*cells('edges')]
    for *texts, cell in found:
        value = agreement(consistency, texts) if texts[1] in photos else edges_value(edges, texts)
        assert_shows(cell, value)
    assert {column for _, column, *_ in found} > photos and len(found) > 20


def test_the_page_on_protocols_agrees_with_the_results_where_both_have_a_number():
    text = (ROOT / 'docs/protocols.md').read_text(encoding='utf-8')
    model, = re.findall('one model, `(.+?)`, measured on Set5', text)
    results = {row['config']: row['psnr'] for row in read('results') if row['model'] == model}
    both = {column: cell for _, column, row, cell in cells('protocols')
            if row == 'Pillow, no' and column.endswith(', Y, s')}
    assert len(both) == 2
    for column, cell in both.items():
        assert_shows(cell, results[f'configs/test/test-set5-{column[1]}.yaml'])
