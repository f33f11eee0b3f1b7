"""What a run starts from: a checkpoint that it continues, the weights of another run, or nothing."""

from pathlib import Path

from torch import nn

from errors import UserError, located, quoted
from models import checkpoint as checkpoints
from models.convert import from_published
from models.normalisation import USUAL_NORM, check_norm, same_normalisation
from models.pretrained import find
from models.registry import load_state, with_defaults
from training.resume import PROGRESS, check_progress, restore_optimizer
from training.run import differences
from training.trainer import Trainer
from utils import note, say

# arguments of models that have no effect once the weights are loaded, or that follow from the weights' shapes
IRRELEVANT = 'init', 'out_dim', 'n_colors', 'rgb_range'


def start_run(trainer: Trainer, source: str | Path | None) -> None:
    """Continues the run of the checkpoint `source`, or starts from the weights that the config names."""
    config = trainer.config
    if source == config.resume and source and not Path(source).exists():
        raise UserError(f'{source}: cannot be read (No such file or directory), but the config says to resume it; to '
                        'continue a run wherever it was interrupted, remove that key and use --resume')
    if source:
        state = checkpoints.read(source)
        with located(source):
            restore(trainer, state, same_run=source != config.resume)
        tell_differences(trainer, source, state['model'])
    elif name := config.weights_from or config.encoder_from:
        with located('weights_from' if config.weights_from else 'encoder_from'):
            path = find(name)
        state = checkpoints.read(path)
        with located(path):
            init_from(trainer, checkpoints.model_of(state))
        if config.weights_from:
            tell_differences(trainer, path, state['model'])


def restore(trainer: Trainer, state: dict, same_run: bool) -> None:
    """Restores what `Trainer.save` has written; if another run wrote it, the position is the beginning of its epoch.

    From checkpoints of other programs only the model, and the epoch if there is one, are used.
    """
    spec = from_published(state['model'])
    load_state(trainer.model, spec['sd'])
    if trainer.ema:
        load_state(trainer.ema, state.get('ema') or spec['sd'])
    trainer.epoch = state.get('epoch', 0)
    check_normalisation(trainer, state.get('data_norm', USUAL_NORM), ('inp', 'gt'))
    if 'iteration' not in state:
        say('this checkpoint has no optimizer state to continue from: its weights are used, and its epoch if any')
        return
    restore_optimizer(trainer.optimizer, trainer.config.optimizer, list(trainer.model.parameters()),
                      state.get('optimizer'))
    if same_run:
        check_progress(state, len(trainer.loss.names))
        if trainer.samples and state.get('samples', trainer.samples) != trainer.samples:
            raise UserError(f"its run has {quoted(state['samples'])} samples in an epoch, but train_dataset now has "
                            f'{trainer.samples}: restore the images, or train into another folder (--name, --tag) with '
                            'weights_from')
        for key in PROGRESS:
            setattr(trainer, key, state[key])
        trainer.seconds, trainer.start_psnr = state.get('seconds', 0.), state.get('start_psnr')


def init_from(trainer: Trainer, other: nn.Module) -> None:
    """Initialises the model with the weights of another one: all, or with `encoder_from` only the encoder's."""
    norm, only_encoder = getattr(other, 'data_norm', USUAL_NORM), trainer.config.encoder_from
    check_normalisation(trainer, norm, ('inp',) if only_encoder else ('inp', 'gt'))
    if only_encoder and not (hasattr(other, 'encoder') and hasattr(trainer.model, 'encoder')):
        raise UserError('encoder_from needs two models that have an encoder')
    for model in filter(None, (trainer.model, trainer.ema)):
        if only_encoder:
            load_state(model.encoder, other.encoder.state_dict())
        else:
            load_state(model, other.state_dict())


def check_normalisation(trainer: Trainer, data_norm: dict | None, keys: tuple[str, ...]) -> None:
    """Raises a UserError if the weights' `data_norm` differs from the config's in one of `keys` ('inp', 'gt')."""
    check_norm(data_norm, trainer.n_colors)
    for key in keys:
        if not same_normalisation(data_norm, trainer.config.data_norm, key):
            theirs, ours = ((norm or {}).get(key) for norm in (data_norm, trainer.config.data_norm))
            raise UserError(f"its data_norm.{key} is {theirs}, the config's {ours}: they must be the same")


def tell_differences(trainer: Trainer, source: str | Path, spec: dict) -> None:
    """Says in which arguments the model `spec` of the weights differs from the config's, although the weights fit."""
    theirs, ours = (from_published(each) for each in (spec, trainer.spec))
    if theirs['name'] != ours['name']:
        note(f"{source}: its model is {quoted(theirs['name'])}, not {ours['name']!r}; the weights fit all the same")
        return
    for key in differences(with_defaults(theirs), with_defaults(ours)):
        if key.split('.')[-1] not in IRRELEVANT:
            note(f"{source}: its model's {key} differs from the config's, so the same weights compute something else")
