"""scripts/protocols.py: each number of its table is that of its row's and column's protocol."""

import contextlib
import io
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from PIL import Image

from scripts import protocols

SET5 = Path('load/benchmark/Set5')


@pytest.fixture(scope='module')
def rows(tmp_path_factory):
    """The table for bicubic interpolation on two images of noise, as {column: {(source, rounded): text}}.

    The images are in the working directory.
    """
    with contextlib.chdir(tmp_path_factory.mktemp('protocols')):
        for i in range(2):
            high = np.random.default_rng(i).integers(0, 256, (48, 64, 3), np.uint8)
            (SET5 / 'HR').mkdir(parents=True, exist_ok=True)
            Image.fromarray(high).save(SET5 / f'HR/{i}.png')
            for scale in 2, 4:
                folder = SET5 / f'LR_bicubic/X{scale}'
                folder.mkdir(parents=True, exist_ok=True)
                Image.fromarray(high[::scale, ::scale]).save(folder / f'{i}x{scale}.png')  # nobody else's reduction
        with mock.patch.object(sys, 'argv', ['protocols.py', '--model', 'bicubic', '--gpu', 'cpu']), \
                contextlib.redirect_stdout(io.StringIO()) as output:
            protocols.main()
        table = [line for line in output.getvalue().splitlines() if line.startswith('|')]
        head, _, *lines = [line.strip('| ').split(' | ') for line in table]
        yield {column: {tuple(line[:2]): line[i] for line in lines} for i, column in enumerate(head)}


def expected(low, scale, colour, border):
    """The mean PSNR, 8-bit, of Pillow's enlargement of the images that `low(i)` gives."""
    values = []
    for i in range(2):
        high = Image.open(SET5 / f'HR/{i}.png')
        big = low(i).resize(high.size, Image.BICUBIC)
        error = (np.asarray(big, float) - np.asarray(high, float))[border:-border, border:-border] / 255
        if colour == 'Y':
            error = error @ [65.738, 129.057, 25.064] / 256
        values.append(-10 * np.log10((error ** 2).mean()))
    return sum(values) / 2


@pytest.mark.parametrize('scale, colour, border, added', [(2, 'Y', 's', 0), (4, 'RGB', 's + 6', 6), (4, 'Y', 's', 0)])
def test_a_number_is_that_of_its_protocol(rows, scale, colour, border, added):
    supplied = expected(lambda i: Image.open(SET5 / f'LR_bicubic/X{scale}/{i}x{scale}.png'), scale, colour,
                        scale + added)
    pillow = expected(lambda i: Image.open(SET5 / f'HR/{i}.png').resize((64 // scale, 48 // scale), Image.BICUBIC),
                      scale, colour, scale + added)
    column = rows[f'×{scale}, {colour}, {border}']
    assert float(column['supplied', '8 bit']) == pytest.approx(supplied, abs=0.02)
    assert float(column['Pillow', '8 bit']) == pytest.approx(pillow, abs=0.02)
    assert abs(supplied - pillow) > 0.1


def test_matlabs_reduction_is_another_than_pillows(rows):
    found = {source: [float(rows[column][source, 'no']) for column in rows if column.startswith('×')]
             for source in ('MATLAB', 'Pillow')}
    assert found['MATLAB'] != found['Pillow'] and found['MATLAB'] == pytest.approx(found['Pillow'], abs=1)


def test_every_combination_has_its_number(rows):
    columns = [column for column in rows if column.startswith('×')]
    assert len(columns) == 8
    assert all(len(rows[column]) == 6 and all(map(float, rows[column].values())) for column in columns)
