"""What all commands share before PyTorch is imported: how they end, and an option.

A command that imports PyTorch after its options are parsed answers --help at once, and without the environment says
how to enter it.
"""

import argparse
import importlib
import io
import re
import signal
import sys
from collections.abc import Callable

from errors import UserError

ENVIRONMENT = 'torch', 'torchvision', 'imageio', 'numpy', 'PIL', 'tqdm', 'yaml'  # by requirements.txt


def runtime_message(error: RuntimeError) -> str | None:
    """What a user can do about an `error` of PyTorch's; None of one that is a mistake of ours."""
    if type(error).__name__ == 'OutOfMemoryError':  # torch's
        return ('out of GPU memory: lower batch_size or sample_q to train, eval_bsize to validate samples, TILE in '
                'models/predict.py to make whole images, or use more GPUs')
    if re.search(r'shared memory|unable to (write to|open|mmap|resize) .*torch_', str(error)):  # a worker's
        return ('shared memory is full (/dev/shm, 64 MB in Docker unless --shm-size says more): set num_workers: 0 '
                'in the config')
    return None


def run_cli(main: Callable[[], None]) -> None:
    """Runs `main`; a UserError, or what amounts to one, ends it with one line on stderr and exit code 2.

    Ctrl-C ends it with one line and exit code 130. Names of files that no encoding fits are printed with escapes.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    try:
        main()
    except UserError as error:
        # An error from a data worker arrives wrapped in the worker's traceback; its last line is the error's own.
        message = str(error).strip().splitlines()[-1].removeprefix('errors.UserError: ')
    except ModuleNotFoundError as error:
        if error.name not in ENVIRONMENT:
            raise
        message = f'{error.name} is not installed: source .venv/bin/activate, or pip install -r requirements.txt'
    except RuntimeError as error:
        message = runtime_message(error)
        if message is None:
            raise
    except OSError as error:  # what cannot be read is a UserError already
        if error.filename is None:
            raise
        message = f'{error.filename}: cannot be written ({error.strerror}); free space, or write elsewhere'
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not disturb the end of the first
        print('interrupted', file=sys.stderr)
        sys.exit(130)  # as shells have it: 128 + SIGINT
    else:
        return
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def import_module(name: str) -> None:
    """Imports the user's Python module `name`, whose classes register themselves."""
    if not all(part.isidentifier() for part in name.split('.')):
        raise UserError(f'--import: {name!r} is no name of a module; examples/own_model.py is examples.own_model')
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # not one that the module itself asks for
            raise UserError(f'--import: there is no module {name!r}; its folder must be that of the '
                            'script, or in PYTHONPATH') from None
        raise


class Import(argparse.Action):
    """Imports the module that the option names. As a `type`, argparse would take the module's own errors for its."""

    def __call__(self, parser, namespace, values, option_string=None):
        import_module(values)


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds --import to an argparse `parser`. It is an option, since a config or checkpoint must not run code."""
    parser.add_argument('--import', action=Import, metavar='MODULE',
                        help='a Python module that registers models, datasets, losses or optimizers, as '
                             'examples.own_model')
