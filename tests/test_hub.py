"""hubconf.py: the models in programs of other folders, whose packages have the same names as ours."""

import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT
from PIL import Image

import hubconf
from models import load_pretrained, upscale_pil

FOREIGN = 'datasets', 'utils', 'config', 'models', 'test', 'pictures'
PROGRAM = '''
import sys
import torch
from PIL import Image
{before}
model = torch.hub.load(sys.argv[1], 'aliif_pixel', source='local')
{after}
model.upscale(Image.open('photo.png'), scale=2.5).save('big.png')
'''


def run(folder, before='', after=''):
    """The picture that a program in `folder` makes by torch.hub; it runs `before` and `after` around the loading."""
    Image.linear_gradient('L').resize((24, 20)).convert('RGB').save(folder / 'photo.png')
    (folder / 'program.py').write_text(PROGRAM.format(before=before, after=after))
    done = subprocess.run([sys.executable, 'program.py', ROOT], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return np.asarray(Image.open(folder / 'big.png'))


@pytest.fixture(scope='module')
def expected():
    photo = Image.linear_gradient('L').resize((24, 20)).convert('RGB')
    return np.asarray(upscale_pil(load_pretrained('edsr-baseline-A-liif-pixel'), photo, scale=2.5))


@pytest.fixture
def foreign(tmp_path):
    """A folder with packages of another program that are called as ours are, each of which knows its name."""
    for name in FOREIGN:
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text(f'from {name}.part import own\n')
        (tmp_path / name / 'part.py').write_text(f'own = "{name} of another"\n')
    return tmp_path


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """The picture of a program that does nothing else, and the names of all modules that it has imported."""
    folder = tmp_path_factory.mktemp('hub')
    big = run(folder, after='open("modules", "w").write(" ".join(sys.modules))')
    return big, {name.partition('.')[0] for name in (folder / 'modules').read_text().split()}


def test_a_model_upscales_in_a_program_of_another_folder(plain, expected):
    assert np.array_equal(plain[0], expected)


def imported(names):
    """A program that imports packages of `foreign` and fails if they are others."""
    return '\n'.join(f'import {name}.part; assert {name}.own == {name}.part.own == "{name} of another"'
                     for name in names)


def test_packages_of_the_same_names_stay_those_of_the_other_program_imported_before_or_afterwards(foreign, expected):
    assert np.array_equal(run(foreign, before=imported(FOREIGN[1::2]), after=imported(FOREIGN)), expected)


@pytest.mark.parametrize('entry', ['aliif_pixel', 'aliif_pixel_web', 'aliif', 'liif', 'lte'])
def test_every_entry_has_its_weights_in_the_repository(entry, monkeypatch):
    monkeypatch.setattr(hubconf, 'load', lambda name: ROOT / f'pretrained/{name}.pth')
    assert getattr(hubconf, entry)().is_file()


def test_what_the_models_import_is_told_to_the_hub_which_names_what_is_missing(plain):
    listed = {'torch', 'numpy', 'yaml', 'tqdm', 'tensorboardX', 'PIL', 'imageio', 'imageio_ffmpeg',
              'tifffile', 'safetensors', 'skimage', 'sklearn', 'jinja2', 'matplotlib'}  # requirements.txt
    assert plain[1] & listed <= {*hubconf.dependencies}


def test_the_models_do_not_import_triton(plain):
    assert 'torch' in plain[1] and 'triton' not in plain[1]
