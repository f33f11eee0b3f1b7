"""A small repository: the configs, a small model, a few images of Set5 and Set14, and a page for the table."""


import numpy as np
import pytest
import torch
from paths import ROOT
from PIL import Image
from specs import a_liif

import models

PAGE = '# Title\n\nbefore\n\n<!-- results -->\nold\n<!-- /results -->\n\nafter \\1\n'


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


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A filled folder as the working directory."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
