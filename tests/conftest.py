"""Which process runs what; the fixtures, which need PyTorch, are in shared_fixtures.py."""

import gc
import importlib
import os

import pytest

os.environ['OMP_NUM_THREADS'] = '1'  # before PyTorch: networks as small as the tests' are slower by several threads

WEB = 'tests/test_explore', 'tests/test_report', 'tests/test_web'  # files that share a server, Chromium or a report


def pytest_configure(config):
    """Imports the fixtures, which takes seconds, unless other processes run the tests."""
    if hasattr(config, 'workerinput') or config.getoption('dist', 'no') == 'no':
        config.pluginmanager.register(importlib.import_module('shared_fixtures'))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With --dist loadfile one process runs all files of `WEB`, so that what they share is started once."""
    from xdist.scheduler import LoadFileScheduling

    class FileScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return 'web' if nodeid.startswith(WEB) else super()._split_scope(nodeid)

    return FileScheduling(config, log) if config.getoption('dist') == 'loadfile' else None


def pytest_collection_finish():
    """Garbage is collected faster without a look at all that was imported."""
    gc.collect()
    gc.freeze()
