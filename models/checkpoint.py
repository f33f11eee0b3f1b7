"""Reading and writing checkpoint files.

A checkpoint is a dict `{'model': {'name', 'args', 'sd'}, ...}`, as LIIF's. `ema`, where present, is the averaged
weights' state dict, `data_norm` the normalisation of the training; what else training needs to go on, it keeps there by
`Trainer.save`.
"""

import io
import warnings
from pathlib import Path

import torch
from torch import nn

from files import atomic_write
from models.registry import make_model
from utils import UserError, check_norm, located


def read(path: str | Path) -> dict:
    """The checkpoint at `path`, on the CPU. Loading it runs no code that the file may hold."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    try:
        with warnings.catch_warnings(action='ignore'):
            checkpoint = torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception:  # what is no pickle raises nearly anything: RuntimeError, EOFError, IndexError, OSError, ...
        raise UserError(f'{path}: is not a checkpoint, or is damaged (cut off?)') from None
    model = checkpoint.get('model') if isinstance(checkpoint, dict) else None
    if not isinstance(model, dict) or 'name' not in model or not isinstance(model.get('sd'), dict):
        raise UserError(f"{path}: is not a checkpoint: it holds no 'model' with name, args and sd")
    return checkpoint


def write(checkpoint: dict, path: str | Path) -> None:
    """Writes `checkpoint` so that `path` holds the old or the new one, whole, whatever happens."""
    content = io.BytesIO()  # torch.save into a file makes a RuntimeError of a full disk's OSError
    torch.save(checkpoint, content)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def final_spec(checkpoint: dict) -> dict:
    """The spec of a checkpoint's model, its `sd` being the averaged weights if there are any."""
    return {**checkpoint['model'], 'sd': checkpoint.get('ema') or checkpoint['model']['sd']}


def load(path: str | Path) -> nn.Module:
    """The model in the checkpoint at `path`, in evaluation mode, with its averaged weights if it has them.

    Its `data_norm` is that of its training, where the checkpoint tells it.
    """
    checkpoint = read(path)
    with located(path):
        model = make_model(final_spec(checkpoint), load_sd=True).eval()
        if 'data_norm' in checkpoint:
            check_norm(checkpoint['data_norm'])
            model.data_norm = checkpoint['data_norm']
        return model
