"""scripts/check_gpu.py runs all tests that need a GPU."""

import re
from pathlib import Path

from paths import ROOT

from scripts import check_gpu

STEPS = check_gpu.steps(Path(), '0')


def test_it_runs_the_files_that_have_tests_for_a_gpu():
    for_gpu = r'skipif\(not torch.cuda.is_available|@needs_(two_)?gpus?\n|= kernel_module\('
    expected = {f'tests/{path.name}' for path in ROOT.glob('tests/test_*.py')
                if re.search(for_gpu, path.read_text(encoding='utf-8'))}
    run = [arg for command in STEPS.values() for arg in command if arg.startswith('tests/')]
    assert sorted(run) == sorted(expected)


def test_of_these_files_it_leaves_out_no_test_that_needs_a_gpu():
    command = STEPS['tests']
    files = [ROOT / arg for arg in command if arg.startswith('tests/')]
    names = [name for path in files for name in re.findall(
        r'@needs_(?:two_)?gpus?\n(?:@.*\n)*def (\w+)', path.read_text(encoding='utf-8'))]
    assert len(names) > 5 and all(command[command.index('-k') + 1] in name for name in names)
