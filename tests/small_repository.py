"""A small repository: the configs, a small model, a few images of Set5 and Set14, and a page for the table."""


import pytest
from paths import ROOT
from photos import write_images
from specs import a_liif, make_checkpoint

PAGE = '# Title\n\nbefore\n\n<!-- results -->\nold\n<!-- /results -->\n\nafter \\1\n'


def fill(folder):
    """Puts into `folder` the repository's configs, a small model, Set5, a part of Set14, and a page."""
    for name in ('configs', 'scripts'):
        (folder / name).symlink_to(ROOT / name)
    (folder / 'pretrained').mkdir()
    make_checkpoint(folder / 'pretrained/small.pth', a_liif())
    for name, count in (('Set5', 5), ('Set14', 3)):
        write_images(folder / f'load/benchmark/{name}/HR', [f'{i}.png' for i in range(count)], (60, 50))
    (folder / 'docs').mkdir()
    (folder / 'docs/results.md').write_text(PAGE)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """A filled folder as the working directory."""
    fill(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
