"""Programs as real processes, forked from a server that has imported PyTorch."""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
from types import SimpleNamespace
from unittest import mock

from paths import ROOT


def fork(folder, script, *args, streams=('stdout', 'stderr'), environment=None, largest_file=None):
    """Starts `python SCRIPT ARGS` in `folder`, its stdout and stderr appended to files there; see `forked`."""
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['projects', 'test'])
    process = context.Process(target=run_script, args=(folder, script, args, streams, environment or {}, largest_file))
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):  # for the server, which starts here
        process.start()
    return process


def data_workers():
    """The data workers of this process; not the programs that it has started by `fork`, such as the web server."""
    programs = multiprocessing.context.ForkServerProcess
    return [child for child in multiprocessing.active_children() if not isinstance(child, programs)]


def ended(process):
    """The exit code of a forked process, which has 100 seconds to end."""
    process.join(100)
    process.kill()
    process.join()
    return process.exitcode


def forked(folder, script, *args, largest_file=None):
    """What `python SCRIPT ARGS` in `folder` gives: returncode, stdout, stderr; files may have `largest_file` bytes.

    A real process, but forked from a server that has imported PyTorch, which spares each of them seconds.
    """
    for name in ('stdout', 'stderr'):
        (folder / name).write_text('')
    code = ended(fork(folder, script, *args, largest_file=largest_file))
    return SimpleNamespace(returncode=code, stdout=(folder / 'stdout').read_text(),
                           stderr=(folder / 'stderr').read_text())


def run_script(folder, script, args, streams, environment, largest_file):
    os.chdir(folder)
    os.environ.update(environment)
    for name, descriptor in zip(streams, (1, 2), strict=True):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which some shells ignore
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    sys.argv = [script, *args]
    runpy.run_path(str(ROOT / script), run_name='__main__')
