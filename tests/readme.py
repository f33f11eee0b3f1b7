"""What README.md and the pages in docs/ show: their commands and their lines of Python."""

import re
import shlex

from paths import ROOT

README, DOCS = ROOT / 'README.md', sorted(ROOT.glob('docs/*.md'))


def blocks(word, pages=(README, *DOCS)):
    """The indented blocks of `pages` that hold `word`, without their indent."""
    text = '\n'.join(page.read_text(encoding='utf-8') for page in pages)
    found = re.findall(r'(?:^ {4}.*\n|^\n(?= {4}))+', text, re.MULTILINE)
    return [re.sub('^ {4}', '', block, flags=re.MULTILINE) for block in found if word in block]


def commands(word, pages=(README, *DOCS)):
    """The command lines with `word` in them, split into their arguments; comments are left out."""
    lines = [line for block in blocks(word, pages) for line in block.replace('\\\n', '').splitlines()]
    return [shlex.split(line, comments=True) for line in lines if word in line]
