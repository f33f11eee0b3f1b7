"""JPEGs from the web: their quality is told, and demo.py knows the model for them where it is there."""

import io
import shutil
import sys

import pytest
from photos import photo
from PIL import Image
from upscaling import picture

import demo
import models.pretrained
from demos.jpeg import jpeg_quality

QUALITIES = range(10, 101, 10)


def stored(image, name='JPEG', **options):
    file = io.BytesIO()
    image.save(file, name, **options)
    return Image.open(file)


@pytest.mark.parametrize('subsampling', ['4:2:0', '4:4:4'])
@pytest.mark.parametrize('quality', QUALITIES)
def test_a_quality_is_the_one_that_pillow_was_told(quality, subsampling):
    image = Image.fromarray(photo(40, 50))
    assert jpeg_quality(stored(image, quality=quality, subsampling=subsampling)) == quality
    assert jpeg_quality(stored(image.convert('L'), quality=quality, progressive=True)) == quality


def test_finer_tables_of_another_program_are_of_higher_quality():
    photoshops = 'web_low', 'web_medium', 'web_high', 'web_very_high', 'web_maximum'
    found = [jpeg_quality(stored(picture(), quality=preset)) for preset in photoshops]
    assert found == sorted({*found}) and found[0] < 60 < 95 < found[-1]


@pytest.mark.parametrize('name', ['PNG', 'WEBP', 'TIFF', 'GIF'])
def test_other_files_have_none(name):
    assert jpeg_quality(stored(picture(), name)) is None


@pytest.fixture
def upscale(weights, tmp_path, monkeypatch, capsys):
    """Calls demo.py with a pretrained/ that holds the default model and `others`: its lines on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*args, others=('edsr-baseline-A-liif-pixel-web',)):
        folder = tmp_path / 'pretrained'
        folder.mkdir()
        for name in ('edsr-baseline-A-liif-pixel', *others):
            shutil.copy(weights / 'bilinear.pth', folder / f'{name}.pth')
        monkeypatch.setattr(models.pretrained, 'FOLDER', folder)
        monkeypatch.setattr(sys, 'argv', ['demo.py', '--gpu', 'cpu', *args])
        demo.main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith('note:')]
    return call


def test_a_jpeg_of_low_quality_is_told_its_model_in_a_line(upscale):
    picture().save('a.jpg', quality=60)
    assert upscale('a.jpg') == [
        'note: a.jpg is a JPEG of quality 60: --model edsr-baseline-A-liif-pixel-web is made for such pictures']


def test_of_a_folder_the_first_such_jpeg_is_named(upscale, tmp_path):
    (tmp_path / 'photos').mkdir()
    for name, options in ('a.png', {}), ('b.jpg', {'quality': 90}), ('c.jpg', {'quality': 89}), ('d.jpg', {}):
        picture().save(f'photos/{name}', **options)
    told, = upscale('photos')
    assert told.startswith('note: photos/c.jpg is a JPEG of quality 89: ')


def test_nothing_is_told_where_the_model_is_not_there(upscale):
    picture().save('a.jpg', quality=60)
    assert upscale('a.jpg', others=()) == []


def test_nothing_is_told_to_who_has_chosen_a_model(upscale):
    picture().save('a.jpg', quality=60)
    assert upscale('a.jpg', '--model', 'edsr-baseline-A-liif-pixel') == []


@pytest.mark.parametrize('name, options', [('a.jpg', {'quality': 90}), ('a.png', {}), ('a.webp', {'quality': 30})])
def test_nothing_is_told_of_other_pictures(upscale, name, options):
    picture().save(name, **options)
    assert upscale(name, '--output', 'big.png') == []
