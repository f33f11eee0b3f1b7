"""What all commands share before PyTorch is imported: error handling, options, and the names of the default models.

A command that imports PyTorch after parsing its options answers --help at once, and outside the environment it says
how to activate it.
"""

import argparse
import errno
import importlib
import importlib.util
import io
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from errors import UserError, one_line, printable

DEFAULT = 'edsr-baseline-A-liif-pixel'  # the model of the demos
WEB = f'{DEFAULT}-web'  # the same, trained for pictures from the web; if it has been added to pretrained/
ENVIRONMENT = 'torch', 'imageio_ffmpeg', 'numpy', 'PIL', 'tqdm', 'yaml'  # in requirements.txt


def runtime_message(error: RuntimeError) -> str | None:
    """What a user can do about an `error` raised by PyTorch; None if the mistake is in this code."""
    on_gpu = type(error).__name__ == 'OutOfMemoryError'  # torch's
    if on_gpu or 'DefaultCPUAllocator' in str(error):
        return (f'out of {"GPU " * on_gpu}memory: lower batch_size or sample_q in training, eval_bsize in validation '
                'on samples, or TILE in models/predict.py for whole images'
                + '; or use more GPUs, or --gpu cpu' * on_gpu)
    if re.search(r'shared memory|unable to (write to|open|mmap|resize) .*torch_', str(error)):  # a worker's
        return ('shared memory is full (/dev/shm, 64 MB in Docker unless --shm-size gives more): set num_workers: 0 '
                'in the config')
    return None


def check_environment() -> None:
    """Raises a ModuleNotFoundError for the first package that is missing, without importing any."""
    for name in ENVIRONMENT:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)


def prepare_streams() -> None:
    """Lets names that cannot be encoded be printed with escapes, and discards what goes to streams that are closed."""
    for name in ('stdout', 'stderr'):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, 'w', encoding='utf-8'))  # noqa: SIM115  to the end
        elif isinstance(getattr(sys, name), io.TextIOWrapper):
            getattr(sys, name).reconfigure(errors='backslashreplace')


def discard_unwritable_output() -> None:
    """Discards what is left for stdout if it cannot be written: flushing it at the end would fail, too."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def exit_orderly() -> None:
    """Makes SIGTERM and SIGHUP (of a closed terminal) raise an exception, so that temporary files are removed."""
    known = [getattr(signal, name) for name in ('SIGTERM', 'SIGHUP') if hasattr(signal, name)]  # Windows lacks SIGHUP

    def end(number, frame):
        for other in known:  # a second one must not disturb the end
            signal.signal(other, signal.SIG_IGN)
        sys.exit(128 + number)

    for number in known:
        if signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, end)


def interrupted() -> NoReturn:
    """Ends the command as Ctrl-C does in shells, with one line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not disturb this
    print('interrupted', file=sys.stderr)
    sys.exit(130)  # 128 + SIGINT


def uncaught(kind: type, error: BaseException, trace: object) -> None:
    """What Python does with an exception outside `run_cli`: Ctrl-C while a command imports PyTorch is one line, too."""
    if kind is KeyboardInterrupt:
        interrupted()
    sys.__excepthook__(kind, error, trace)


def run_cli(main: Callable[[], None]) -> None:
    """Runs `main`; a UserError, or an equivalent exception, ends it with one line on stderr and exit code 2.

    Ctrl-C ends it with one line and exit code 130, also after `run_cli`.
    """
    prepare_streams()
    exit_orderly()
    sys.excepthook = uncaught
    try:
        main()
        check_environment()  # commands import PyTorch after this; --help has ended them before
    except UserError as error:
        # an error from a data worker arrives wrapped in the worker's traceback
        message = printable(str(error).rpartition('\nerrors.UserError: ')[2].strip())
    except ModuleNotFoundError as error:
        if error.name not in ENVIRONMENT:
            raise
        message = f'{error.name} is not installed: source .venv/bin/activate, or pip install -r requirements.txt'
    except RuntimeError as error:
        message = runtime_message(error)
        if message is None:
            raise
    except BrokenPipeError:  # nobody reads the output any more, as after `| head`
        discard_unwritable_output()
        sys.exit(141)  # 128 + SIGPIPE
    except MemoryError as error:
        message = f'out of memory ({one_line(error)})'
    except OSError as error:
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        discard_unwritable_output()
        place = error.filename or 'a disk, /dev/shm, or where the output goes'
        message = f'{place}: cannot be read or written ({error.strerror})'
    except KeyboardInterrupt:
        interrupted()
    else:
        return
    print(f'error: {message}', file=sys.stderr)
    sys.exit(2)


def import_module(name: str) -> None:
    """Imports the user's Python module `name`, whose classes register themselves."""
    if not all(part.isidentifier() for part in name.split('.')):
        raise UserError(f'--import: {name!r} is not the name of a module; examples/own_model.py is examples.own_model')
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if f'{name}.'.startswith(f'{error.name}.'):  # not for a module that it imports itself
            raise UserError(f'--import: there is no module {name!r}; its folder must be that of the '
                            'script, or in PYTHONPATH') from None
        raise


class Import(argparse.Action):
    """Imports the module that the option names. If a `type` did this, argparse would catch errors in the module."""

    def __call__(self, parser, namespace, values, option_string=None):
        import_module(values)
        namespace.imports = [*namespace.imports, values]


def add_model_option(parser: argparse.ArgumentParser, what: str = 'a name in pretrained/, or a checkpoint') -> None:
    """Adds --model to an argparse `parser`: `what` it takes, by default the name of DEFAULT."""
    parser.add_argument('--model', default=DEFAULT, help=f'{what} (default: {DEFAULT})')


def add_gpu_option(parser: argparse.ArgumentParser) -> None:
    """Adds --gpu to an argparse `parser`."""
    parser.add_argument('--gpu', default='0', help="index of the GPU (default: 0), or 'cpu', which is used anyway if "
                                                   'there is no CUDA')


def add_import_option(parser: argparse.ArgumentParser) -> None:
    """Adds --import to an argparse `parser`. It is an option because configs and checkpoints must not run code."""
    parser.add_argument('--import', action=Import, dest='imports', default=[], metavar='MODULE',
                        help='a Python module that registers models, datasets, losses or optimizers, such as '
                             'examples.own_model')
