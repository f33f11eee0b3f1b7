"""Ctrl-C, and a terminal that is closed: commands end in a word or none, and leave no part of a file."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from paths import ROOT
from PIL import Image
from processes import ended, fork
from upscaling import picture


def test_ctrl_c_leaves_whole_files_alone_and_the_next_run_does_the_rest(cli, weights):
    os.mkdir('small')
    names = [f'{i}.png' for i in range(6)]
    for name in names:
        picture(width=60, height=60).save(f'small/{name}')
    run = fork(Path.cwd(), 'demo.py', '--gpu', 'cpu', '--model', str(weights / 'random.pth'), '--input', 'small',
               '--output', 'big', '--scale', '4')
    while run.is_alive() and not os.path.exists('big/0.png'):
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGINT)
    assert (ended(run), Path('stderr').read_text()) == (128 + signal.SIGINT, 'interrupted\n')
    done = os.listdir('big')
    assert 0 < len(done) < len(names)
    for name in done:
        with Image.open(f'big/{name}') as image:
            image.load()
            assert image.size == (240, 240)
    code, _, _ = cli('--input', 'small', '--scale', 4, '--output', 'big', model='random.pth')
    assert (code, sorted(os.listdir('big'))) == (0, names)


IMPORTER = '''
import time
from cli import run_cli

run_cli(lambda: None)  # as commands parse their options
print('importing', flush=True)
time.sleep(60)
'''


def test_ctrl_c_while_a_command_imports_pytorch_is_one_line(tmp_path):
    run = subprocess.Popen([sys.executable, '-c', IMPORTER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                           preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))
    assert run.stdout.readline() == 'importing\n'
    run.send_signal(signal.SIGINT)
    _, err = run.communicate()
    assert (run.returncode, err) == (130, 'interrupted\n')


WRITER = '''
import time
from cli import run_cli
from files import atomic_write

def main():
    with atomic_write('a.png'):
        print('writing', flush=True)
        time.sleep(60)

run_cli(main)
'''


def test_a_terminal_that_is_closed_ends_a_command_without_a_word_or_a_part_of_a_file(tmp_path):
    run = subprocess.Popen([sys.executable, '-c', WRITER], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                           cwd=tmp_path, env={**os.environ, 'PYTHONPATH': str(ROOT)},
                           preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL))  # nohup ignores it
    assert run.stdout.readline() == 'writing\n' and len(os.listdir(tmp_path)) == 1
    run.send_signal(signal.SIGHUP)
    _, err = run.communicate()
    assert (run.returncode, err, os.listdir(tmp_path)) == (128 + signal.SIGHUP, '', [])
