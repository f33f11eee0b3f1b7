"""What scripts write: tables in Markdown, JSON, figures, and the tables in docs/results.md."""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from errors import UserError
from files import atomic_write, write_text
from utils import to_json

PAGE = Path('docs/results.md')


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], words: int = 1) -> str:
    """A table: the first `words` columns are text, the others numbers, aligned on the right."""
    first, *others = (f'| {" | ".join(row)} |' for row in (head, *rows))
    return '\n'.join([first, '|' + '---|' * words + '---:|' * (len(head) - words), *others])


def read_rows(path: Path) -> list:
    """The rows of a JSON file; none if it does not exist."""
    return json.loads(path.read_text(encoding='utf-8')) if path.exists() else []


def write_rows(path: Path, rows: Iterable) -> None:
    """Writes a JSON file with one row per line, for readable diffs."""
    path.parent.mkdir(exist_ok=True)
    write_text(path, '[\n' + ',\n'.join(map(to_json, rows)) + '\n]\n')


def write_figure(path: Path, figure, dpi: int = 100) -> None:
    """Writes `figure`, of Matplotlib, as PNG."""
    with atomic_write(path) as file:
        figure.savefig(file, dpi=dpi)


def update_page(name: str, content: str) -> None:
    """Writes docs/results.md with `content` between the markers of this `name`, replacing what is there."""
    start, end = f'<!-- {name} -->', f'<!-- /{name} -->'
    text, found = re.subn(f'{start}.*?{end}', lambda _: f'{start}\n{content}\n{end}',
                          PAGE.read_text(encoding='utf-8'), flags=re.DOTALL)
    if found != 1:
        raise UserError(f'{PAGE}: must have {start} and {end} once, around the table, not {found} times')
    write_text(PAGE, text)
