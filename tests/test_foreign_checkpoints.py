"""Checkpoints that other code, or an enemy, wrote: they load, or one line says what is wrong with them."""

import argparse
import json
import os
import random
import struct
import threading
import tracemalloc
import zipfile

import fuzz
import numpy as np
import pytest
import specs
import torch
import yaml
from processes import forked
from projects import CONFIG, changed, only_line, write_photos

import models
from errors import UserError
from models import checkpoint, registry

SPEC = specs.pixel()


@pytest.fixture
def state():
    torch.manual_seed(0)
    return models.make(SPEC).state_dict()


def save(path, state, **rest):
    torch.save({'model': {**SPEC, 'sd': state}, **rest}, path)
    return path


def refusal(path, read=models.load):
    """The one line by which the file `path` is refused, without the path itself."""
    with pytest.raises(UserError) as error:
        read(path)
    assert len(str(error.value).splitlines()) == 1 and len(str(error.value)) < 800
    assert str(error.value).startswith(f'{path}: ')
    return str(error.value).removeprefix(f'{path}: ')


def script(folder, name, *args):
    """A program of the project, run in `folder`."""
    return forked(folder, name, *map(str, args))


# --- whole and healthy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize('rename', [
    lambda name: f'module.{name}', lambda name: f'_orig_mod.{name}', lambda name: f'module._orig_mod.{name}',
    lambda name: f'_orig_mod.module.{name}', lambda name: name.replace('encoder.', 'encoder._orig_mod.')])
def test_the_prefixes_of_dataparallel_and_compile_are_taken_off_weights_and_average(tmp_path, state, rename):
    average = {rename(name): tensor + 1 for name, tensor in state.items()}
    path = save(tmp_path / 'a.pth', {rename(name): tensor for name, tensor in state.items()}, ema=average)
    loaded = models.load(path).state_dict()
    assert all(torch.equal(loaded[name], tensor + 1) for name, tensor in state.items())
    assert checkpoint.read(path)['model']['sd'].keys() == checkpoint.read(path)['ema'].keys() == state.keys()


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_load(tmp_path, state, dtype):
    path = save(tmp_path / 'a.pth', {name: tensor.to(dtype) for name, tensor in state.items()})
    loaded = models.load(path).state_dict()
    for name, tensor in state.items():
        assert loaded[name].dtype == torch.float32
        torch.testing.assert_close(loaded[name], tensor.to(dtype).float(), rtol=0, atol=0)


# --- whole, and something else -------------------------------------------------------------------------------------


@pytest.mark.parametrize('value, told', [(np.float64(31.5), 'numpy._core.multiarray.scalar'),
                                         (argparse.Namespace(lr=1e-4), 'argparse.Namespace')])
@pytest.mark.parametrize('zipped', [True, False])
def test_objects_beside_the_weights_are_named_and_the_file_is_not_called_damaged(tmp_path, state, value, told, zipped):
    content = {'model': {**SPEC, 'sd': state}, 'best': value}
    torch.save(content, tmp_path / 'a.pth', _use_new_zipfile_serialization=zipped)
    assert refusal(tmp_path / 'a.pth').startswith(f'holds {told}, which is not loaded since it could run code')


def write_safetensors(path, tensors):
    """A safetensors file by its definition: the header's length, the header in JSON, the numbers."""
    header, data = {'__metadata__': {'format': 'pt'}}, b''
    for name, tensor in tensors.items():
        content = tensor.contiguous().numpy().tobytes()
        ends = [len(data), len(data) + len(content)]
        header[name] = {'dtype': 'F32', 'shape': list(tensor.shape), 'data_offsets': ends}
        data += content
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack('<Q', len(text)) + text + data)


def write_alone(path, state, kind):
    """The weights `state` without a spec, as other code keeps them."""
    if kind == 'safetensors':
        write_safetensors(path, state)
    else:
        torch.save({kind: state, 'iter': 5} if kind else state, path)


@pytest.mark.parametrize('kind, told', [
    ('safetensors', 'is a safetensors file: it holds no spec of a model, but weights alone'), ('', 'but weights alone'),
    ('params', 'but weights alone (params)'), ('params_ema', 'but weights alone (params_ema)'),
    ('state_dict', 'but weights alone (state_dict)'), ('model', 'but weights alone (model)'),
    ('g_ema', 'but weights alone (g_ema)')])
def test_weights_alone_are_told_with_how_to_load_them(tmp_path, state, kind, told):
    write_alone(tmp_path / 'a.pth', state, kind)
    message = refusal(tmp_path / 'a.pth')
    assert told in message and 'scripts/export_weights.py FILE NEW.pth --config CONFIG makes a checkpoint' in message


@pytest.mark.parametrize('kind', ['', 'params_ema', 'net', 'safetensors'])
def test_weights_alone_become_a_checkpoint_by_a_config(tmp_path, state, kind):
    if kind == 'safetensors':
        pytest.importorskip('safetensors')
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump(changed(CONFIG, {'model': SPEC, 'data_norm.gt': None})))
    write_alone(tmp_path / 'a.pth', {f'module.{name}': tensor for name, tensor in state.items()}, kind)
    done = script(tmp_path, 'scripts/export_weights.py', 'a.pth', 'new.pth', '--config', 'a.yaml')
    assert done.returncode == 0, done.stderr
    model = models.load(tmp_path / 'new.pth')
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert model.data_norm == {'inp': {'sub': [0.5], 'div': [0.5]}}


def test_weights_of_another_model_than_the_configs_are_refused_when_they_are_exported(tmp_path, state):
    (tmp_path / 'a.yaml').write_text(yaml.safe_dump(CONFIG))
    write_alone(tmp_path / 'a.pth', state, '')
    done = script(tmp_path, 'scripts/export_weights.py', 'a.pth', 'new.pth', '--config', 'a.yaml')
    assert done.returncode == 2 and not (tmp_path / 'new.pth').exists()
    assert only_line(done.stderr).startswith('error: a.pth: the weights do not fit the model: ')


def test_missing_unexpected_and_misshapen_tensors_are_all_told(tmp_path, state):
    wrong = {f'a.{name}': tensor for name, tensor in state.items()} | {'imnet.biases.0': torch.zeros(5)}
    message = refusal(save(tmp_path / 'a.pth', wrong))
    assert 'encoder.head.0.weight is missing' in message and 'a.encoder.head.0.weight is unexpected' in message
    assert 'imnet.biases.0 is (5,) instead of (3, 6)' in message
    assert message.endswith(f', and {2 * len(state) - 5} more')


def test_an_unknown_class_may_be_ones_own_and_the_error_says_how_it_becomes_known(tmp_path, state):
    torch.save({'model': {**SPEC, 'name': 'nobodys-decoder', 'sd': state}}, tmp_path / 'a.pth')
    assert refusal(tmp_path / 'a.pth').endswith('import one of your own with --import MODULE')


# --- not finite ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('where', ['sd', 'ema'])
@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_refused_by_the_first_tensors_name(tmp_path, state, value, where):
    bad = {name: tensor.clone() for name, tensor in state.items()}
    for name in ('encoder.body.0.body.2.bias', 'imnet.weights.1'):
        bad[name].view(-1)[-1] = value
    path = save(tmp_path / 'a.pth', **{'state': state, where.replace('sd', 'state'): bad})
    for read in (models.load, checkpoint.read):
        assert refusal(path, read).startswith('encoder.body.0.body.2.bias has values that are not finite')


def test_weights_that_float32_cannot_hold_are_refused(tmp_path, state):
    path = save(tmp_path / 'a.pth', state | {'imnet.biases.0': state['imnet.biases.0'].double() + 1e300})
    assert refusal(path).startswith('imnet.biases.0 has values that are not finite')


@pytest.mark.parametrize('program, args', [
    ('demo.py', ['--input', 'photos/0.png', '--output', 'b.png', '--scale', 2, '--gpu', 'cpu', '--model', 'a.pth']),
    ('scripts/export_weights.py', ['a.pth', 'b.png'])])
def test_a_program_with_weights_that_are_not_finite_writes_nothing(tmp_path, state, program, args):
    save(tmp_path / 'a.pth', state | {'imnet.biases.0': state['imnet.biases.0'] * np.nan})
    write_photos(tmp_path / 'photos', 1)
    done = script(tmp_path, program, *args)
    assert done.returncode == 2 and not (tmp_path / 'b.png').exists()
    assert only_line(done.stderr).startswith('error: a.pth: imnet.biases.0 has values that are not finite')


# --- hostile -------------------------------------------------------------------------------------------------------

NAME, INSIDE = 'encoder.head.0.weight', 'model a-liif: model'


@pytest.mark.parametrize('name, value, told', [
    (NAME, 5, f'{NAME} is 5, not a tensor'), (NAME, None, f'{NAME} is None, not a tensor'),
    (NAME, [torch.zeros(3, 40)] * 90, f'{NAME} is [tensor('), (3, torch.zeros(1), "a tensor's name is 3; it must be"),
    ('a\nb', torch.zeros(1), "a tensor's name is 'a\\nb'; it must be a short text"),
    ('x' * 10 ** 6, torch.zeros(1), "a tensor's name is 'xxx"),
    (NAME, torch.zeros(4, 3, 3, 3).to_sparse(), f'{NAME} is not a plain tensor'),
    (NAME, torch.zeros(4, 3, 3, 3, device='meta'), f'{NAME} is not a plain tensor'),
    (NAME, torch.zeros(4, 3, 3, 3).long(), f'the weights do not fit the model: {NAME} is torch.int64 instead of torc'),
    (NAME, torch.zeros(1).expand(10 ** 6, 10 ** 7), f'{NAME}, of (1000000, 10000000), needs more memory than'),
])
def test_what_is_no_tensor_of_the_model_is_named(tmp_path, state, name, value, told):
    assert refusal(save(tmp_path / 'a.pth', {**state, name: value})).startswith(told)


def endless(depth, width, make):
    value = 1
    for _ in range(depth):
        value = make([value] * width)
    return value


@pytest.mark.parametrize('changes, told', [
    ({'model.args': [1]}, "its model's spec must be a name and args, not 'a-liif' and [1]"),
    ({'model.name': ['a']}, "its model's spec must be a name and args, not ['a'] and"),
    ({'model.args.imnet_spec.args.K': torch.zeros(2)}, "its model's spec or data_norm holds tensor([0., 0.]), but"),
    ({'data_norm': {'gt': {'sub': [torch.zeros(1)], 'div': [1.]}}}, "its model's spec or data_norm holds tensor([0.])"),
    ({'model.args.imnet_spec': endless(9, 9, list)}, 'holds more than 100,000 values'),
    ({'model.args.imnet_spec': endless(60, 1, list)}, 'is nested more than 50 levels deep'),
    ({'model.args.imnet_spec.args.K': 10 ** 7}, f'{INSIDE} mlp-mixture: the weights do not fit'),
    ({'model.args.imnet_spec.args.K': 10 ** 30}, 'the model needs more memory than there is'),
    ({'model.args.imnet_spec.args.hidden_list': [10 ** 6] * 2}, f'{INSIDE} mlp-mixture: the weights do not fit'),
    ({'model.args.imnet_spec.args.hidden_list': [1] * 90_000}, f'{INSIDE} mlp-mixture: the weights do not fit'),
    ({'model.args.encoder_spec.args.n_resblocks': 10 ** 7}, f'{INSIDE} edsr-baseline: the weights do not fit'),
    ({'ema': 3}, 'the weights must be tensors by their names, not 3'),
    ({'data_norm': 'x'}, "data_norm must hold inp and gt, not 'x'"),
    ({'data_norm': {'gt': {'sub': [float('nan')], 'div': [1.]}}}, 'data_norm.gt: sub[0] must be float, not nan'),
    ({'data_norm': {'gt': {'sub': [0.], 'div': [float('inf')]}}}, 'data_norm.gt: div[0] must be a finite number'),
    ({'epoch': '3'}, "its epoch is '3', but must be a whole number"),
])
def test_a_checkpoint_with_what_no_run_writes_is_refused(tmp_path, state, changes, told):
    content = changed({'model': {**SPEC, 'sd': dict(state)}, 'data_norm': {}, 'epoch': 1}, changes)
    torch.save(content, tmp_path / 'a.pth')
    assert refusal(tmp_path / 'a.pth').startswith(told)


def test_a_model_that_no_memory_holds_is_refused_in_training_too():
    spec = changed(SPEC, {'args.imnet_spec.args.K': 10 ** 9, 'args.expansion_spec.args.out_dim': 10 ** 9})
    with pytest.raises(UserError, match='the model needs more memory than'):
        models.registry.make_model(spec)


@pytest.mark.parametrize('spec', [
    changed(specs.lmliif(), {'args.imnet_spec.args.hidden_depth': 10 ** 9}),
    changed(specs.liif(), {'args.encoder_spec': changed(specs.SWINIR, {'args.depths': [10 ** 9]})})
], ids=['lmliif', 'swinir'])
def test_a_model_of_a_billion_layers_is_refused_before_memory_is_taken_for_them(tmp_path, state, spec):
    torch.save({'model': {**spec, 'sd': dict(state)}}, tmp_path / 'a.pth')
    tracemalloc.start()
    try:
        assert 'the weights do not fit the model: it is far larger' in refusal(tmp_path / 'a.pth')
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize('zeros', [10 ** 7, 10 ** 4], ids=['a-thousand-times', 'twice'])
def test_a_file_that_unpacks_to_more_than_its_size_is_refused_before_it_is_unpacked(tmp_path, state, zeros):
    save(tmp_path / 'whole.pth', state | {'imnet.biases.0': torch.zeros(zeros)})
    with zipfile.ZipFile(tmp_path / 'whole.pth') as source, zipfile.ZipFile(tmp_path / 'a.pth', 'w') as target:
        for part in source.infolist():
            target.writestr(part.filename, source.read(part), zipfile.ZIP_DEFLATED)
    assert 'bytes unpack to' in refusal(tmp_path / 'a.pth')


def test_a_model_that_another_thread_makes_meanwhile_may_be_larger_than_the_weights_that_are_loaded():
    failed = []

    def other():
        try:
            torch.nn.Linear(300, 300)
        except UserError as error:
            failed.append(error)

    with registry.limited({'weight': torch.zeros(3)}):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert not failed
        with pytest.raises(UserError, match='far larger'):
            torch.nn.Linear(300, 300)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / 'a.pth').open('wb') as file:
        file.truncate(1 << 42)  # it takes no room on the disk
    assert refusal(tmp_path / 'a.pth').startswith('needs 8192.0 GB of memory')


def test_a_pipe_and_a_folder_are_no_checkpoints(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'folder.pth').mkdir()
    assert refusal(tmp_path / 'pipe') == 'is not a regular file'
    assert refusal(tmp_path / 'folder.pth') == 'cannot be read (Is a directory)'


@fuzz.each_seed
def test_a_damaged_checkpoint_loads_or_is_refused_in_one_line(tmp_path, seed):
    fuzz.try_checkpoint(random.Random(seed), tmp_path / 'a.pth')
