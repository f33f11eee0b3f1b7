"""Reading and writing checkpoint files.

A checkpoint is a dict `{'model': {'name', 'args', 'sd'}, ...}`, as in LIIF. `ema`, if present, is the state dict of the
averaged weights, and `data_norm` the normalisation used in training; `training.trainer` adds what resuming needs.
A safetensors file is a checkpoint, too, if its metadata hold everything but the weights as JSON, under `KEY`.
"""

import io
import json
import math
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import nn

from config import check_extent
from errors import UserError, located, quoted
from files import atomic_write, free_memory
from models.convert import bare_state, from_mmagic, unwrapped
from models.normalisation import check_norm
from models.registry import make_model

KEY = 'aliif'  # in the metadata of safetensors files: all of a checkpoint but its weights
DAMAGED = 'is not a checkpoint, or is damaged (cut off?)'
NO_CHECKPOINT = "is not a checkpoint: it holds no 'model' with name, args and sd"
ALONE = ('{}, but weights alone{}; scripts/export_weights.py FILE NEW.pth --config CONFIG makes a checkpoint of them '
         "and the config's model")


# --- from a file to what it holds ----------------------------------------------------------------------------------


def read_file(path: str | Path) -> bytes:
    """The bytes of the file at `path`; UserError if they and the tensors in them need more memory than is free."""
    path = Path(path)
    try:
        size, free = path.stat().st_size, free_memory()
        if path.exists() and not path.is_file() and not path.is_dir():
            raise UserError('is not a regular file')
        if 2 * size > free:
            raise UserError(f'needs {2 * size / 2**30:.1f} GB of memory, but {free / 2**30:.1f} GB are free')
        return path.read_bytes()
    except OSError as error:
        raise UserError(f'cannot be read ({error.strerror})') from None


def is_safetensors(content: bytes) -> bool:
    """Whether `content` is a safetensors file, which begins with a JSON header and, in 8 bytes before it, its length.
    """
    return content[8:9] == b'{' and 2 <= int.from_bytes(content[:8], 'little') < len(content)


def check_packing(content: bytes) -> None:
    """Raises a UserError if the zip file `content` is compressed, which torch.save never does.

    Otherwise a small file could unpack to more than the memory holds.
    """
    try:
        size = sum(part.file_size for part in zipfile.ZipFile(io.BytesIO(content)).infolist())
    except Exception:  # a damaged file raises nearly anything
        raise UserError(DAMAGED) from None
    if size > len(content):
        raise UserError(f'is compressed, which torch.save never does: {len(content)} bytes unpack to {size}; pack it '
                        'again without compression')


def unpickle(content: bytes) -> object:
    """The object in `content`, a file written by torch.save. Runs no code from it."""
    if content[:4] == b'PK\3\4':
        check_packing(content)
    try:
        with warnings.catch_warnings(action='ignore'):
            return torch.load(io.BytesIO(content), map_location='cpu', weights_only=True)
    except Exception as error:  # other files raise nearly anything: RuntimeError, EOFError, IndexError, OSError
        if refused := re.search(r'GLOBAL ([\w.]{1,100})', str(error)):
            raise UserError(f'holds {refused[1]}, which is not loaded since it could run code; save the file again '
                            'with nothing but tensors, texts, plain numbers, lists and dicts') from None
        raise UserError(DAMAGED) from None


# --- what a checkpoint may hold ------------------------------------------------------------------------------------


def check_state(state: object) -> None:
    """Raises a UserError, naming the first bad tensor, unless `state` is a state dict of plain, finite tensors."""
    if not isinstance(state, dict):
        raise UserError(f'the weights must be tensors by their names, not {quoted(state)}')
    size, free = 0, free_memory()
    for name, tensor in state.items():
        if not isinstance(name, str) or not name.isprintable() or len(name) > 1000:
            raise UserError(f"a tensor's name is {quoted(name)}; it must be a short text")
        if not isinstance(tensor, torch.Tensor):
            raise UserError(f'{name} is {quoted(tensor)}, not a tensor')
        real = tensor.is_floating_point()
        if (tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != 'cpu'
                or real and tensor.itemsize < 2):
            raise UserError(f'{name} is not a plain tensor (sparse, quantized, nested, without values): save it as one')
        size += tensor.numel() * tensor.itemsize
        if size > free:
            raise UserError(f'{name}, of {tuple(tensor.shape)}, needs more memory than the {free / 2**30:.1f} GB free')
        if not (tensor.float() if real else tensor).isfinite().all():
            raise UserError(f'{name} has values that are not finite (NaN or infinity): the training, or the program '
                            'that wrote the file, went wrong')


def check_spec(model: dict, data_norm: object) -> None:
    """Raises a UserError unless a checkpoint's `model` and `data_norm` hold only what configs may hold."""
    def children(value):
        if isinstance(value, dict):
            return [*value, *value.values()]
        if isinstance(value, list | tuple):
            return value
        if not isinstance(value, str | int | float | None):
            raise UserError(f"its model's spec or data_norm holds {quoted(value)}, but may hold only texts, numbers, "
                            'lists and dicts')
        return []

    check_extent([data_norm, {key: value for key, value in model.items() if key != 'sd'}], children)
    if not isinstance(model['name'], str) or not isinstance(model.get('args'), dict | None):
        raise UserError(f"its model's spec must be a name and args, not {quoted(model['name'])} and "
                        f"{quoted(model.get('args'))}")


# --- checkpoints ---------------------------------------------------------------------------------------------------


def read(path: str | Path) -> dict:
    """The checkpoint at `path`, on the CPU. Runs no code that the file may contain.

    Its weights are finite, and their names are without the prefixes of DataParallel and torch.compile.
    """
    with located(path):
        content = read_file(path)
        checkpoint = from_safetensors(content) if is_safetensors(content) else unpickle(content)
        checkpoint = from_mmagic(checkpoint) or checkpoint
        model = checkpoint.get('model') if isinstance(checkpoint, dict) else None
        if not isinstance(model, dict) or 'name' not in model or not isinstance(model.get('sd'), dict):
            if found := bare_state(checkpoint):
                raise UserError(ALONE.format(NO_CHECKPOINT, found[0] and f' ({found[0]})'))
            raise UserError(NO_CHECKPOINT)
        check_spec(model, checkpoint.get('data_norm'))
        for key in 'epoch', 'iteration':
            if not isinstance(count := checkpoint.get(key, 0), int) or count < 0:
                raise UserError(f'its {key} is {quoted(count)}, but must be a whole number')
        sd, ema = model['sd'], checkpoint.get('ema')
        for state in (sd,) if ema is None else (sd, ema):
            check_state(state)
        return {**checkpoint, 'model': {**model, 'sd': unwrapped(sd)}, 'ema': ema and unwrapped(ema)}


def read_bare(path: str | Path) -> dict:
    """The state dict in a file that other code has written: safetensors, or torch.save's, alone or in a dict."""
    with located(path):
        content = read_file(path)
        if is_safetensors(content):
            state = load_safetensors(content)
        else:
            found = bare_state(unpickle(content))
            if found is None:
                raise UserError('holds no weights (a state dict, alone or in a dict)')
            _, state = found
        check_state(state)
        return unwrapped(state)


def load_safetensors(content: bytes) -> dict:
    """The tensors of a safetensors file, by their names."""
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError:
        raise UserError('is a safetensors file, which needs a package: pip install safetensors') from None
    try:
        return load(content)
    except (SafetensorError, ValueError, KeyError):
        raise UserError('is a safetensors file, and damaged (cut off?)') from None


def from_safetensors(content: bytes) -> dict:
    """The checkpoint in a safetensors file made by `to_safetensors`."""
    header = content[8:8 + int.from_bytes(content[:8], 'little')]
    try:
        rest = json.loads(json.loads(header)['__metadata__'][KEY])
        model = rest['model']
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UserError(ALONE.format('is a safetensors file: it holds no spec of a model', '')) from None
    if not isinstance(rest, dict) or not isinstance(model, dict):
        raise UserError(DAMAGED)
    return {**rest, 'model': {**model, 'sd': load_safetensors(content)}}


def to_safetensors(checkpoint: dict) -> bytes:
    """`checkpoint` as a safetensors file: the weights, and the rest as JSON."""
    try:
        from safetensors.torch import save
    except ImportError:
        raise UserError('safetensors files need a package: pip install safetensors') from None
    model = {key: value for key, value in checkpoint['model'].items() if key != 'sd'}
    state = {name: tensor.contiguous() for name, tensor in checkpoint['model']['sd'].items()}
    return save(state, {'format': 'pt', KEY: json.dumps({**checkpoint, 'model': model})})


def write(checkpoint: dict, path: str | Path) -> None:
    """Writes `checkpoint` so that, whatever happens, `path` holds either the old file or the complete new one.

    A `path` that ends in .safetensors selects that format, for checkpoints without training state.
    """
    if Path(path).suffix == '.safetensors':
        with located(path):
            data = to_safetensors(checkpoint)
    else:
        content = io.BytesIO()  # if it writes to a file, torch.save turns a full disk's OSError into a RuntimeError
        torch.save(checkpoint, content)
        data = content.getbuffer()
    with atomic_write(path) as file:
        file.write(data)


def final_spec(checkpoint: dict) -> dict:
    """The spec of a checkpoint's model, with the averaged weights as its `sd` if there are any."""
    return {**checkpoint['model'], 'sd': checkpoint.get('ema') or checkpoint['model']['sd']}


def model_of(checkpoint: dict) -> nn.Module:
    """The model in `checkpoint`, in evaluation mode, with its averaged weights if it has them.

    Its `data_norm` and `scale_max` are those of its training, if the checkpoint records them.
    """
    model = make_model(final_spec(checkpoint), load_sd=True).eval()
    if 'data_norm' in checkpoint:
        check_norm(checkpoint['data_norm'], getattr(model, 'n_colors', None))
        model.data_norm = checkpoint['data_norm']
    set_scale_max(model, checkpoint.get('scale_max'))
    return model


def set_scale_max(model: nn.Module, scale: object) -> None:
    """Sets the largest scale of the `model`'s training, if `scale` is valid and the model has such a bound."""
    if isinstance(scale, int | float) and 1 <= scale < math.inf and getattr(model, 'scale_max', None):
        model.scale_max = scale


def load(path: str | Path) -> nn.Module:
    """`model_of` the checkpoint at `path`."""
    checkpoint = read(path)
    with located(path):
        return model_of(checkpoint)
