"""A report that test.py --report writes, for the tests of its content and of the page in a browser."""

import sys

import pytest
import yaml
from photos import write_images
from specs import a_liif, make_checkpoint

import test

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


def run(*args):
    """test.py with `args`, on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['test.py', *map(str, args), '--gpu', 'cpu'])
        test.main()


@pytest.fixture(scope='session')
def report_folder(tmp_path_factory):
    """A folder with out/index.html, the report on two configs of two images, and the runs' numbers as JSON."""
    folder = tmp_path_factory.mktemp('report')
    write_images(folder / 'images', NAMES, SIZE)
    configs = write_configs(folder, folder / 'images', SCALES)
    make_checkpoint(folder / 'model.pth', a_liif())
    evaluate = '--config', *configs, '--model'
    run(*evaluate, folder / 'model.pth', '--json', folder / 'ours.json', '--report', folder / 'out')
    run(*evaluate, 'bicubic', '--json', folder / 'bicubic.json')
    return folder
