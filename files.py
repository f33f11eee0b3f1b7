"""Files: writing them completely or not at all, limiting the length of names, and the memory available for them."""

import contextlib
import hashlib
import math
import os
import re
import secrets
import stat
import typing
from collections.abc import Iterator
from pathlib import Path

from errors import UserError, one_line


@contextlib.contextmanager
def writing(path: str | os.PathLike, *kinds: type[Exception]) -> Iterator[None]:
    """Turns an OSError, such as that of a full disk, or an error of another of `kinds` into a UserError on `path`."""
    try:
        yield
    except (OSError, *kinds) as error:
        name, reason = (getattr(error, key, None) for key in ('filename', 'strerror'))
        raise UserError(f'{name or path}: cannot be written ({reason or one_line(error):.200})') from None


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[typing.BinaryIO]:
    """Opens a temporary file beside `path`, which is flushed to disk and renamed to `path` only if no error occurs.

    If `path` is a link, its target is replaced; an existing file keeps its permissions. Anything that is not a regular
    file, such as /dev/stdout, is written to directly.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        with writing(path), open(path, 'wb') as file:
            yield file
        return
    target = os.path.realpath(path)
    with writing(path), temporary_file(os.path.dirname(target)) as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
        with contextlib.suppress(FileNotFoundError):
            os.chmod(file.name, stat.S_IMODE(os.stat(target).st_mode))
        if os.name == 'nt':  # Windows renames no open files, and has no locks that `sweep` relies on
            file.close()
        os.replace(file.name, target)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` in UTF-8 to `path` by `atomic_write`."""
    with atomic_write(path) as file:
        file.write(text.encode())


@contextlib.contextmanager
def temporary_file(folder: str) -> Iterator[typing.BinaryIO]:
    """A file in `folder` that is finally removed unless it has been renamed; it is locked, for `sweep`."""
    while True:
        # a name unrelated to that of the final file, which may already be as long as names can be
        name = os.path.join(folder, f'.{secrets.token_hex(8)}.tmp')  # `sweep` knows these names
        try:
            file = open(name, 'w+b')  # noqa: SIM115  to be read, too: Pillow appends pages to a TIFF
        except OSError as error:
            error.filename = None  # the user knows the file by another name
            raise
        lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:  # otherwise `sweep` has removed it in the meantime
            break
        file.close()
    try:
        with file:
            yield file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)


def lock(file: typing.BinaryIO, wait: bool = False) -> bool:
    """Locks `file` until the process closes it or dies; returns whether that succeeded."""
    try:
        import fcntl
        # not lockf, whose lock would be lost when np.save closes its duplicate of the file
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except (ImportError, OSError):  # Windows, locked by another process, a file system without locks
        return False
    return True


def sweep(folder: str | os.PathLike) -> None:
    """Removes temporary files that killed processes have left in `folder`: those that are not locked."""
    for entry in os.scandir(folder):
        if re.fullmatch(r'\.[0-9a-f]{16}\.tmp', entry.name):
            with contextlib.suppress(OSError), open(entry.path, 'r+b') as file:
                if lock(file):
                    os.remove(entry.path)


def make_place(path: str | os.PathLike) -> None:
    """Makes the folder of `path` unless it exists; raises a UserError if no file can be written as `path`.

    Temporary files that killed processes have left in the folder are removed. Anything that is not a regular file, such
    as /dev/stdout, is accepted as `path`.
    """
    if os.path.isdir(path):
        raise UserError(f'{path}: is a folder, but a file is to be written there')
    if os.path.exists(path) and not os.path.isfile(path):
        return
    with writing(os.path.dirname(path) or '.'):
        os.makedirs(os.path.dirname(path) or '.', exist_ok=True)
        folder = os.path.dirname(os.path.realpath(path))  # `path` may be a link
        sweep(folder)
        with temporary_file(folder):
            pass


NAME_BYTES = 255  # limit of a file name on Linux, macOS and, roughly, Windows


def file_name(stem: str, ending: str = '') -> str:
    """`stem` + `ending` as a file name; if that is too long, the stem is cut, and a hash keeps the name unique."""
    def size(text):
        return len(os.fsencode(text))

    if size(stem + ending) <= NAME_BYTES:
        return stem + ending
    ending = f'~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}{ending}'
    while stem and size(stem + ending) > NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def cgroup_memory(folder: Path) -> int:
    """The bytes that a container may still use, from the files in `folder`; ValueError if it has no limit."""
    limit, used = (int((folder / name).read_text()) for name in ('memory.max', 'memory.current'))
    cached = next(int(line.split()[1]) for line in (folder / 'memory.stat').read_text().splitlines()
                  if line.startswith('inactive_file '))
    return limit - used + cached  # cached files count as used, but are freed when needed


def free_memory() -> float:
    """The bytes of memory that this process can still use, given the machine and the limits set for the process."""
    limits = [math.inf]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # not Linux
        limits.append(os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE'))
    with contextlib.suppress(OSError, StopIteration), open('/proc/meminfo', encoding='ascii') as file:
        limits.append(1024 * next(int(line.split()[1]) for line in file if line.startswith('MemAvailable')))
    with contextlib.suppress(OSError, ValueError, StopIteration):
        limits.append(cgroup_memory(Path('/sys/fs/cgroup')))
    with contextlib.suppress(OSError, ImportError):
        import resource
        allowed = resource.getrlimit(resource.RLIMIT_AS)[0]
        if allowed != resource.RLIM_INFINITY:
            with open('/proc/self/statm', encoding='ascii') as file:
                limits.append(allowed - int(file.read().split()[0]) * resource.getpagesize())
    return min(limits)
