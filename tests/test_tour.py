"""examples/tour.ipynb runs from its first cell to its last, and shows what it promises."""

import re

import nbformat
import pytest
from nbclient import NotebookClient
from paths import ROOT

EXAMPLES = ROOT / 'examples'


@pytest.fixture(scope='module')
def outputs():
    """The outputs of each cell of code, run from the top in a kernel of its own."""
    notebook = nbformat.read(EXAMPLES / 'tour.ipynb', as_version=4)
    NotebookClient(notebook, timeout=600, resources={'metadata': {'path': str(EXAMPLES)}}).execute()
    return [cell.outputs for cell in notebook.cells if cell.cell_type == 'code']


@pytest.mark.slow
def test_every_cell_shows_a_picture(outputs):
    assert len(outputs) == 4
    assert all(any('image/png' in output.get('data', {}) for output in cell) for cell in outputs)


@pytest.mark.slow
def test_the_own_decoder_learns(outputs):
    text = ''.join(output.text for output in outputs[-1] if output.output_type == 'stream' and output.name == 'stdout')
    losses = [float(loss) for loss in re.findall(r'loss (0\.\d+)', text)]
    assert len(losses) == 6 and losses[-1] < 0.9 * losses[0]


def test_the_notebook_is_stored_without_outputs():
    notebook = nbformat.read(EXAMPLES / 'tour.ipynb', as_version=4)
    assert not any(cell.get('outputs') or cell.get('execution_count') for cell in notebook.cells)
