"""The models in pretrained/ by their names."""

from pathlib import Path

from errors import UserError, unknown
from models.checkpoint import load
from models.decoder import Decoder

FOLDER = Path(__file__).resolve().parents[1] / 'pretrained'
SUFFIXES = '.safetensors', '.pth'  # of checkpoints


def pretrained(folder: Path | None = None) -> dict[str, Path]:
    """The checkpoints in pretrained/, or another `folder`, by their names."""
    return {path.stem: path for suffix in SUFFIXES for path in (folder or FOLDER).glob(f'*{suffix}')}


def find(name: str | Path) -> Path:
    """The checkpoint that is meant by `name`: a name in pretrained/, or a path."""
    known, path = pretrained(), Path(name)
    if str(name) not in known and path.name == str(name) and not path.suffix and not path.exists():
        raise unknown('pretrained model', str(name), known)
    return known.get(str(name), path)


def load_pretrained(name: str | Path) -> Decoder:
    """The model in evaluation mode, on the CPU: a `name` in pretrained/, or the path of a checkpoint.

    UserError unless it is a `Decoder`: a user's own model in LIIF's style can only be trained and measured.
    """
    path = find(name)
    model = load(path)
    if not isinstance(model, Decoder):
        raise UserError(f'{path}: its model is not a models.decoder.Decoder, and only these make pictures')
    return model
