"""Fixtures that several files of tests share."""

import sys

import pytest
import specs
import torch
from archives import prepare, server  # noqa: F401  (fixtures)
from photos import save_photos
from PIL import Image
from projects import Project
from reports import report_folder  # noqa: F401  (a fixture)
from small_repository import work  # noqa: F401  (a fixture)
from upscaling import RANDOM, silence
from web_server import chromium, url, web_folder, web_model, web_photo  # noqa: F401  (fixtures)

import demo
import utils
from cli import run_cli
from models import load_pretrained, predict, rdn


@pytest.fixture
def project(tmp_path):
    """A small project to train in."""
    return Project(tmp_path)


@pytest.fixture(scope='session')
def undisturbed(tmp_path_factory):
    """A function that gives, for changes to the config, all checkpoints of a run that nothing disturbs."""
    done = {}

    def checkpoints(changes):
        if str(changes) not in done:
            project = Project(tmp_path_factory.mktemp('undisturbed'), changes)
            project.train()
            done[str(changes)] = project.checkpoints()
        return done[str(changes)]
    return checkpoints


@pytest.fixture(autouse=True)
def new_notes():
    """Notes that another test has seen are printed again."""
    utils.note.cache_clear()


@pytest.fixture
def seeded():
    torch.manual_seed(1)


@pytest.fixture
def small_tiles(monkeypatch):
    """Tiles and bands of a few pixels."""
    for name, value in {'TILE': 6, 'QUERIES': 150, 'ROWS': 1}.items():
        monkeypatch.setattr(predict, name, value)


@pytest.fixture
def small_rdn(monkeypatch):
    """An RDN of 2 blocks of 2 layers as configuration A."""
    monkeypatch.setitem(rdn.CONFIGS, 'A', (2, 2, 3))


@pytest.fixture
def folder(tmp_path):
    """A folder of three images."""
    return save_photos(tmp_path / 'images', a=(70, 90), b=(85, 64), c=(64, 64))


@pytest.fixture
def pair(tmp_path):
    """Two folders of LR and HR images, x3, with a remainder that is no part of the LR images."""
    lr = save_photos(tmp_path / 'lr', ax3=(20, 25), bx3=(22, 18))
    return lr, save_photos(tmp_path / 'hr', a=(61, 77), b=(66, 55))


@pytest.fixture(scope='session')
def weights(tmp_path_factory):
    """A folder: random.pth; bilinear.pth, which interpolates; brighter.pth, which also adds 0.2; liif.pth."""
    folder = tmp_path_factory.mktemp('weights')
    specs.make_checkpoint(folder / 'random.pth', RANDOM)
    specs.make_checkpoint(folder / 'bilinear.pth', RANDOM, silence)
    specs.make_checkpoint(folder / 'brighter.pth', RANDOM, lambda model: silence(model, 0.2))
    specs.make_checkpoint(folder / 'liif.pth', specs.liif())
    return folder


@pytest.fixture
def bilinear(weights):
    """A model that interpolates."""
    return load_pretrained(weights / 'bilinear.pth')


@pytest.fixture
def cli(weights, tmp_path, monkeypatch, capsys):
    """Calls demo.py in tmp_path, with bilinear.pth unless told otherwise: exit code, lines of stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', Image.MAX_IMAGE_PIXELS)  # main changes it

    def call(*args, model='bilinear.pth'):
        utils.note.cache_clear()  # each call is a run
        monkeypatch.setattr(sys, 'argv', ['demo.py', '--gpu', 'cpu', '--model', str(weights / model), *map(str, args)])
        try:
            run_cli(demo.main)
            code = 0
        except SystemExit as end:
            code = end.code
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return call
