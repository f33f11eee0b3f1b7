"""Files: written whole or not at all, names that are not too long, what memory there is for them."""

import contextlib
import hashlib
import math
import os
import secrets
import stat
import typing
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[None]:
    """Puts the name `path` into an OSError raised inside that has none, as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[typing.BinaryIO]:
    """Opens a temporary file beside `path`; it is flushed to disk and takes that name only if all went well.

    Of a link it is the target that is replaced, and a file that exists keeps its permissions. What is no file, such as
    /dev/stdout, is written to as it is.
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
        if os.name == 'nt':  # which renames no open file, and has no `sweep` for which it would have to stay locked
            file.close()
        os.replace(file.name, target)


@contextlib.contextmanager
def temporary_file(folder: str) -> Iterator[typing.BinaryIO]:
    """A file in `folder` that is removed in the end unless it has another name by then; locked: see `sweep`."""
    while True:
        # a name of its own, for that of the final file may be as long as names can be
        name = os.path.join(folder, f'.{secrets.token_hex(8)}.tmp')
        try:
            file = open(name, 'w+b')  # noqa: SIM115  a TIFF's next page is appended to what is read
        except OSError as error:
            error.filename = None  # the user knows another name
            raise
        lock(file, wait=True)
        if os.fstat(file.fileno()).st_nlink:  # else `sweep` came between
            break
        file.close()
    try:
        with file:
            yield file
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(name)


def lock(file: typing.BinaryIO, wait: bool = False) -> bool:
    """Whether the lock of `file`, which its process holds until it closes it or dies, could be had."""
    try:
        import fcntl
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))  # lockf's would end in np.save, which dups
    except (ImportError, OSError):  # Windows, another process's, a file system without locks
        return False
    return True


def sweep(folder: str | os.PathLike) -> None:
    """Removes what writers that were killed have left in `folder`: temporary files that nobody holds a lock of."""
    for entry in os.scandir(folder):
        if entry.name.endswith('.tmp'):
            with contextlib.suppress(OSError), open(entry.path, 'r+b') as file:
                if lock(file):
                    os.remove(entry.path)


NAME_BYTES = 255  # of a file, in the file systems of Linux, macOS and, roughly, Windows


def file_name(stem: str, ending: str = '') -> str:
    """`stem` + `ending` as the name of a file; one too long for that is cut, and a hash keeps it apart from others."""
    def size(text):
        return len(os.fsencode(text))

    if size(stem + ending) <= NAME_BYTES:
        return stem + ending
    ending = f'~{hashlib.sha256(os.fsencode(stem)).hexdigest()[:8]}{ending}'
    while size(stem + ending) > NAME_BYTES:
        stem = stem[:-1]
    return stem + ending


def cgroup_memory(folder: Path) -> int:
    """The bytes that a container may still have, by the files in `folder`; ValueError where it has no limit."""
    limit, used = (int((folder / name).read_text()) for name in ('memory.max', 'memory.current'))
    cached = next(int(line.split()[1]) for line in (folder / 'memory.stat').read_text().splitlines()
                  if line.startswith('inactive_file '))
    return limit - used + cached  # files that were read count as used, but make way


def free_memory() -> float:
    """How many bytes of memory this process can still have: on the machine, and by the limits set to it."""
    limits = [math.inf]
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no Linux
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
