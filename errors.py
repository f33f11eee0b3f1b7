"""Errors for users' mistakes, and how messages quote values. Does not import PyTorch, which takes seconds."""

import contextlib
import difflib
import os
import reprlib
import typing
from collections.abc import Iterable, Iterator, Sequence


class UserError(Exception):
    """A user's mistake, described in one line: what is wrong, where, and what is allowed."""


@contextlib.contextmanager
def located(where: str | os.PathLike) -> Iterator[None]:
    """Puts `where` (a file, a key, a model's name) in front of any UserError raised inside."""
    try:
        yield
    except UserError as error:
        raise UserError(f'{where}: {error}') from None


class Short(reprlib.Repr):
    """Python's `repr` in one line; deep, wide and cyclic values are abbreviated."""

    def __init__(self):
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple, self.maxset = 3, 4, 4, 4, 4
        self.maxstring, self.maxother = 80, 80

    def repr1(self, x: typing.Any, level: int) -> str:
        if isinstance(x, dict):
            return self.repr_dict(x, level)  # also for subclasses, whose own repr may be endless
        try:
            return one_line(super().repr1(x, level))
        except ValueError:  # an integer with more digits than Python prints
            return f'a number of {x.bit_length()} bits'


def quoted(value: typing.Any) -> str:
    """Any `value`, as quoted in error messages."""
    text = Short().repr(value)
    return text if len(text) <= 300 else f'{text[:200]}...{text[-80:]}'


def size_text(size: Sequence[int]) -> str:
    """A size (H, W) as text: width x height."""
    return f'{size[1]}x{size[0]}'


def one_line(text: typing.Any) -> str:
    """`text`, such as an exception, with its lines joined; the name of its type if it is empty."""
    return ' '.join(str(text).split()) or type(text).__name__


def printable(text: str) -> str:
    """`text` with escapes for line breaks and other control characters, which file names may contain."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def unknown(what: str, name: object, known: Iterable[str]) -> UserError:
    """The error for a `name` that is not among the `known` ones."""
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f', did you mean {near[0]!r}?' if near else ''
    return UserError(f'unknown {what} {quoted(name)}{hint} (known: {", ".join(sorted(known))})')
