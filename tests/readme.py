"""What README.md shows: its commands and its lines of Python."""

import re
import shlex
from pathlib import Path

README = Path(__file__).resolve().parents[1] / 'README.md'


def blocks(word):
    """The README's indented blocks that hold `word`, without their indent."""
    found = re.findall(r'(?:^ {4}.*\n|^\n(?= {4}))+', README.read_text(encoding='utf-8'), re.MULTILINE)
    return [re.sub('^ {4}', '', block, flags=re.MULTILINE) for block in found if word in block]


def commands(word):
    """The command lines with `word` in them, split into their arguments; comments are left out."""
    lines = [line for block in blocks(word) for line in block.replace('\\\n', '').splitlines()]
    return [shlex.split(line, comments=True) for line in lines if word in line]
