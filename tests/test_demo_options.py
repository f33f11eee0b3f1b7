"""demo.py's options: what is made when little is said, sizes in all ways to write them, and what is told."""

import os
import subprocess
import sys

import numpy as np
import pytest
from paths import ROOT
from PIL import Image
from upscaling import picture

from models import load_pretrained, upscale_pil


def test_a_picture_alone_is_made_four_times_as_large_beside_it(cli):
    os.mkdir('photos')
    picture().save('photos/photo.jpg')
    code, out, err = cli('photos/photo.jpg')
    assert (code, err) == (0, [])
    with Image.open('photos/photo-x4.png') as big:
        assert (big.format, big.size) == ('PNG', (48, 40))
    assert any(line.startswith('photos/photo-x4.png: 48x40') for line in out)
    assert out[-1].startswith('next: look at photos/photo-x4.png') and '--compare' in out[-1]


def test_a_folder_alone_becomes_a_folder_beside_it(cli):
    os.mkdir('photos')
    picture().save('photos/a.jpg')
    code, out, _ = cli('photos/', '--scale', 2.5)
    assert code == 0 and out[-1].startswith('next: look at photos-x2.5;')
    assert os.listdir('photos-x2.5') == ['a.jpg'] and os.listdir('photos') == ['a.jpg']


def test_the_folder_one_is_in_becomes_one_beside_it(cli, monkeypatch):
    os.mkdir('photos')
    picture().save('photos/a.jpg')
    monkeypatch.chdir('photos')
    code, out, _ = cli('.', '--scale', 2)
    assert code == 0 and out[-1].startswith('next: look at ../photos-x2;')
    assert os.listdir('../photos-x2') == ['a.jpg']


def test_self_ensemble_averages_the_flips_and_transposes(cli, weights):
    picture().save('photo.png')
    assert cli('photo.png', '--scale', 2, '--float32', '--self-ensemble', model='random.pth')[0] == 0
    model = load_pretrained(weights / 'random.pth')
    once, averaged = (np.asarray(upscale_pil(model, picture(), 2, self_ensemble=each)) for each in (False, True))
    assert (np.asarray(Image.open('photo-x2.png')) == averaged).all() and (averaged != once).any()


@pytest.mark.parametrize('text, name, size', [
    ('30,60', 'photo-60x30.png', (60, 30)), ('60x30', 'photo-60x30.png', (60, 30)), ('36', 'photo-36.png', (36, 30))])
def test_a_resolution_is_height_and_width_or_width_x_height_or_the_longer_side(cli, text, name, size):
    picture().save('photo.jpg')
    assert cli('photo.jpg', '--resolution', text)[0] == 0
    assert Image.open(name).size == size


def test_the_longer_side_is_that_of_the_picture_as_it_is_seen(cli):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture().save('photo.jpg', exif=exif)
    assert cli('photo.jpg', '--resolution', 24)[0] == 0
    assert Image.open('photo-24.png').size == (20, 24)


@pytest.mark.parametrize('resolution, told', [
    ('24x40', '2 times as high'), ('60x25', '2 times as wide'), ('31x25', None), ('30x25', None), ('40', None)])
def test_another_aspect_ratio_is_said_in_a_line(cli, resolution, told):
    picture().save('photo.png')
    code, out, _ = cli('photo.png', '--resolution', resolution)
    lines = [line for line in out if 'aspect ratio' in line]
    assert code == 0 and len(lines) == (told is not None)
    assert told is None or 'photo.png' in lines[0] and '12x10' in lines[0] and lines[0].endswith(told)


def test_the_last_line_of_a_comparison_names_it(cli):
    picture().save('photo.jpg')
    out = cli('photo.jpg', '--compare')[1]
    assert out[-1].startswith('next: look at photo-x4-compare.png')


@pytest.mark.parametrize('args', [(), ('a.png', '--input', 'b.png'), ('a.png', '--scale', 2, '--resolution', 9)])
def test_no_picture_two_pictures_and_two_sizes_are_errors(cli, args):
    code, _, err = cli(*args)
    assert code == 2 and err[-1].startswith('demo.py: error: ')


@pytest.mark.parametrize('args, message', [
    (('',), 'a path is empty; is a variable unset?'), (('a.png', '--output', ''), 'a path is empty'),
    (('/',), '/: there is nothing beside it to write to; give an --output'),
    (('pipe',), 'pipe: is a pipe or a device; save the picture in a file first'),
    (('a.png', '--resolution', '9' * 400), '--resolution: sides have at most 9 digits, not those of 99999'),
    (('a.png', '--output', '/dev/null'), '--output /dev/null: exists, and is neither a folder nor a file with a')])
def test_a_path_that_cannot_be_meant_is_told_in_a_line(cli, args, message):
    picture().save('a.png')
    os.mkfifo('pipe')
    code, _, err = cli(*args)
    assert (code, len(err)) == (2, 1) and err[0].startswith(f'error: {message}')


# --- real processes --------------------------------------------------------------------------------------------------


def run(*args, **kwargs):
    return subprocess.run([sys.executable, *args], cwd=ROOT, capture_output=True, text=True, **kwargs)


COMMANDS = sorted(str(path.relative_to(ROOT)) for folder in ('.', 'scripts')
                  for path in (ROOT / folder).glob('*.py') if '    run_cli(main)' in path.read_text('utf-8'))


@pytest.mark.parametrize('command', COMMANDS)
def test_help_does_not_wait_for_pytorch(command):
    result = run('-X', 'importtime', command, '--help')
    imported = {line.rsplit('|')[-1].strip() for line in result.stderr.splitlines()}
    assert result.returncode == 0 and f'python {command}' in result.stdout
    assert 'argparse' in imported
    assert not imported & {'torch', 'torchvision', 'numpy', 'scipy', 'matplotlib', 'PIL', 'yaml', 'tqdm'}


def test_the_commands_are_those_of_the_repository():
    assert {'demo.py', 'test.py', 'train_liif.py', 'web_demo.py', 'scripts/results.py'} < {*COMMANDS}
    assert len(COMMANDS) >= 23


@pytest.mark.parametrize('args', [('demo.py', 'a.png'), ('test.py', '--config', 'a.yaml', '--model', 'bicubic'),
                                  ('train_liif.py', '--config', 'a.yaml'), ('scripts/edges.py',)])
def test_without_the_environment_one_line_says_how_to_enter_it(args):
    result = run('-S', *args)  # -S: without the packages of .venv
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert 'source .venv/bin/activate' in result.stderr


def test_a_package_that_is_missing_is_named_in_one_line():
    program = "import sys; sys.modules['torch'] = None; import demo; demo.run_cli(demo.main)"
    result = run('-c', program, 'a.png')
    assert result.returncode == 2 and len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith('error: torch is not installed: ')


@pytest.mark.parametrize('statement, code, told', [
    ("print('x', flush=True)", 2, 'error: a disk, /dev/shm, or where the output goes: cannot be read or written'),
    ('np.empty(2**60, "u1")', 2, 'error: out of memory (Unable to allocate 1.00 EiB for an array with shape'),
    ("sys.exit(0 if sys.stderr.write('x') else 1)", 0, None)])
def test_a_full_disk_little_memory_and_closed_streams_end_without_a_traceback(statement, code, told):
    program = f'import sys; import numpy as np; from cli import run_cli; run_cli(lambda: {statement})'
    closed = '2>&-' if told is None else ''
    result = subprocess.run(['bash', '-c', f'exec "{sys.executable}" -c "$1" >/dev/full {closed}', '-', program],
                            cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert result.returncode == code
    assert told is None or (len(result.stderr.splitlines()), result.stderr.startswith(told)) == (1, True)
