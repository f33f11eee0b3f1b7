"""Mistakes in a config: one line on stderr and exit code 2 that say what is wrong, where, and what is allowed."""

import pytest
from projects import error, error_of_process


@pytest.mark.parametrize('changes, message', [
    # unknown keys, with the nearest known one
    ({'epoch_mx': 3}, "tiny.yaml: unknown key 'epoch_mx', did you mean 'epoch_max'? (known: amp, channels_last, comp"),
    ({'train_dataset.batchsize': 3}, "tiny.yaml: train_dataset: unknown key 'batchsize', did you mean 'batch_size'?"),
    ({'train_dataset.wrapper.args.sample': 3}, "implicit-downsampled: unknown key 'sample', did you mean 'sample_q'?"),
    ({'train_dataset.wrapper.arg': {}}, "dataset sr-implicit-downsampled: unknown key 'arg', did you mean 'args'?"),
    ({'model.args.imnet': {}}, "tiny.yaml: model a-liif: unknown key 'imnet', did you mean 'imnet_spec'?"),
    ({'model.args.imnet_spec.args.k': 2}, "model mlp-mixture: unknown key 'k'"),
    ({'optimizer.args.learning_rate': 1}, "tiny.yaml: optimizer adam: unknown key 'learning_rate'"),
    ({'data_norm.input': {}}, "tiny.yaml: unknown key 'data_norm.input', did you mean 'data_norm.inp'?"),
    ({'data_norm.gt.std': [1]}, "tiny.yaml: data_norm.gt: unknown key 'std' (known: div, sub)"),
    ({'multi_step_lr': {'steps': [1]}}, "tiny.yaml: multi_step_lr: unknown key 'steps' (known: gamma, milestones)"),
    # missing keys
    ({'optimizer': None}, "tiny.yaml: missing key 'optimizer'"),
    ({'train_dataset.wrapper': None}, "tiny.yaml: train_dataset: missing key 'wrapper'"),
    ({'train_dataset.dataset.args.root_path': None}, "dataset image-folder: missing key 'root_path'"),
    ({'model.args.encoder_spec': None}, "tiny.yaml: model a-liif: missing key 'encoder_spec'"),
    ({'optimizer.args.lr': None}, "tiny.yaml: optimizer adam: missing key 'lr'"),
    ({'data_norm.inp.div': None}, "tiny.yaml: data_norm.inp: missing key 'div'"),
    ({'model.name': None}, 'tiny.yaml: a model must be given as name and args, not {'),
    ({'val_dataset': None}, 'tiny.yaml: epoch_val needs a val_dataset'),
    # wrong types
    ({'epoch_max': 'many'}, "tiny.yaml: epoch_max must be int, not 'many'"),
    ({'epoch_max': 2.5}, 'tiny.yaml: epoch_max must be int, not 2.5'),
    ({'train_dataset': 'photos'}, "tiny.yaml: train_dataset must be dict, not 'photos'"),
    ({'train_dataset.batch_size': [2]}, 'tiny.yaml: train_dataset: batch_size must be int, not [2]'),
    ({'train_dataset.wrapper.args.augment': 'often'}, "augment must be bool, not 'often'"),
    ({'train_dataset.dataset.args.cache': 'ram'}, "cache must be 'none' | 'bin' | 'in_memory', not 'ram'"),
    ({'train_dataset.dataset.args.root_path': [1]}, 'root_path must be a folder or a list of folders, not [1]'),
    ({'train_dataset.dataset.args': 'photos'}, 'train_dataset: a dataset must be given as name and args, not {'),
    ({'model.args': 'large'}, 'tiny.yaml: a model must be given as name and args, not {'),
    ({'model.args': 0}, 'tiny.yaml: a model must be given as name and args, not {'),
    ({'model.args.imnet_spec.args.K': 'ten'}, "model mlp-mixture: K must be int, not 'ten'"),
    ({'optimizer.args.lr': 'high'}, "tiny.yaml: optimizer adam: lr must be float, not 'high'"),
    ({'optimizer.args.betas': [0.9, 'x']}, "tiny.yaml: optimizer adam: betas[1] must be float, not 'x'"),
    ({'optimizer.args.betas': [0.9]}, 'tiny.yaml: optimizer adam: betas must be two numbers, not [0.9]'),
    ({'multi_step_lr': {'milestones': 200}}, 'tiny.yaml: multi_step_lr: milestones must be list, not 200'),
    ({'amp': 'fp16'}, "tiny.yaml: amp must be 'bf16' or null, not 'fp16'"),
    # unknown names, with the list
    ({'model.name': 'aliif'}, "tiny.yaml: unknown model 'aliif', did you mean 'a-liif'? (known: a-liif, "),
    ({'model.args.encoder_spec.name': 'edsr-base'}, "unknown model 'edsr-base', did you mean 'edsr-baseline'?"),
    ({'train_dataset.dataset.name': 'folder'}, "unknown dataset 'folder', did you mean 'image-folder'? (known: im"),
    ({'optimizer.name': 'adamw'}, "tiny.yaml: unknown optimizer 'adamw', did you mean 'adam'? (known: adam, sgd)"),
    # values that cannot be
    ({'model.args.imnet_spec.args.K': 3}, 'a-liif: expansion_spec gives 2 weights (out_dim), imnet_spec has K = 3'),
    ({'train_dataset.wrapper.args.sample_q': 65}, 'sample_q must be at most 64, the pixels of a target of 8x8, not 65'),
    ({'train_dataset.wrapper.args.scale_min': 4}, 'scales must be 1 <= scale_min <= scale_max, not 4 and 3'),
    ({'train_dataset.wrapper.args.scale_min': 0.5}, 'scales must be 1 <= scale_min <= scale_max, not 0.5 and 3'),
    ({'train_dataset.wrapper.args.inp_size': 48}, 'photos/0.png: 50x40 pixels, but a crop takes 144x144 (5 of 5 '),
    ({'train_dataset.batch_size': 0}, 'tiny.yaml: train_dataset: batch_size must be at least 1, not 0'),
    ({'train_dataset.wrapper.args.inp_size': None}, 'samples of different sizes cannot form a batch: set inp_size'),
    ({'epoch_val': -1}, 'tiny.yaml: epoch_val must be at least 1, not -1'),
    ({'optimizer.args.lr': -1}, 'tiny.yaml: optimizer adam: Invalid learning rate: -1.0'),
    ({'data_norm.gt.div': [0]}, 'tiny.yaml: data_norm.gt: sub and div must hold a number or one for each channel'),
    ({'ema': 1}, 'tiny.yaml: ema must be between 0 and 1, not 1'),
    ({'grad_clip': -1}, 'tiny.yaml: grad_clip must be above 0, not -1'),
    ({'eval_type': 'set5-2'}, "tiny.yaml: eval_type must be div2k-SCALE or benchmark-SCALE, not 'set5-2'"),
    ({'cosine_lr': {}, 'multi_step_lr': {'milestones': []}}, 'multi_step_lr and cosine_lr exclude each other'),
    ({'cosine_lr': {'warmup': float('nan')}}, 'tiny.yaml: cosine_lr: warmup must be float, not nan'),
    ({'cosine_lr': {'warmup': -1}}, 'tiny.yaml: cosine_lr: warmup and hold must be 0 or more, not -1'),
    ({'optimizer.args.lr': float('nan')}, 'tiny.yaml: optimizer adam: lr must be float, not nan'),
    ({'optimizer.args.lr': float('inf')}, 'tiny.yaml: optimizer adam: lr must be a finite number, not inf'),
    ({'multi_step_lr': {'milestones': [1], 'gamma': -1}}, 'tiny.yaml: multi_step_lr: gamma must be 0 or more, not -1'),
    ({'data_norm.inp.sub': [float('inf')]}, 'tiny.yaml: data_norm.inp: sub[0] must be a finite number, not inf'),
    ({'data_norm.inp.div': [1, 2]}, 'tiny.yaml: data_norm.inp: sub and div must hold a number or one for each'),
    ({'data_norm': [1]}, 'tiny.yaml: data_norm must be dict or null, not [1]'),
    ({'cosine_lr': {'hold': 3}}, 'tiny.yaml: cosine_lr: hold must be below epoch_max, 3, not 3'),
    ({'loss': {'name': 'l2'}}, "tiny.yaml: unknown loss 'l2'"),
    # data that are not there
    ({'train_dataset.dataset.args.root_path': 'load/nowhere'},
     'tiny.yaml: train_dataset: dataset image-folder: load/nowhere: no such folder; put or link'),
    ({'val_dataset.dataset.args.root_path': '.'}, 'val_dataset: dataset image-folder: .: holds no images (.png, '),
])
def test_a_mistake_is_told_with_its_place_and_what_is_allowed(project, changes, message):
    project.change(changes)
    assert message in error(project)


ENCODER = {'name': 'edsr-baseline', 'args': {'n_resblocks': 1, 'no_upsampling': True}}
LIIF = {'name': 'mlp', 'args': {'out_dim': 3, 'hidden_list': [8]}}
MIXTURE = {'name': 'mlp-mixture', 'args': {'out_dim': 3, 'hidden_list': [8]}}


@pytest.mark.parametrize('changes, message', [
    ({'model.args.imnet_spec.args.hidden_list': ['a']}, "hidden_list[0] must be int, not 'a'"),
    ({'model.args.imnet_spec.args.hidden_list': [8.5]}, 'hidden_list[0] must be int, not 8.5'),
    ({'model.args.imnet_spec.args.hidden_list': [8, 0]}, 'model mlp-mixture: hidden_list[1] must be at least 1, not 0'),
    ({'model.args.expansion_spec.args.hidden_list': [-3]}, 'hidden_list[0] must be at least 1, not -3'),
    ({'model.args.imnet_spec.args.out_dim': 1}, 'imnet_spec: out_dim must be 3, for the colours, not 1'),
    ({'model.args.imnet_spec.args.K': 0}, 'model mlp-mixture: K must be at least 1, not 0'),
    ({'model.args.imnet_spec': LIIF}, 'imnet_spec: mlp does not fit here, where it must be a kind of MLPMixture'),
    ({'model.args.expansion_spec.name': 'mlp'}, 'expansion_spec: mlp does not fit here, where it must be a kind of Ex'),
    ({'model': {'name': 'liif', 'args': {'encoder_spec': ENCODER, 'imnet_spec': MIXTURE}}},
     'imnet_spec: mlp-mixture does not fit here, where it must be a kind of MLP'),
    ({'model.args.encoder_spec.args.n_feats': 0}, 'model edsr-baseline: n_feats must be at least 1, not 0'),
    ({'model.args.encoder_spec.args.n_resblocks': -1}, 'n_resblocks must be at least 1, not -1'),
    ({'model.args.encoder_spec': {'name': 'rcan', 'args': {'n_feats': 4}}}, 'reduction must be at most n_feats, 4'),
    ({'model.args.encoder_spec': {'name': 'rdn', 'args': {'RDNkSize': 4}}}, 'model rdn: RDNkSize must be odd, not 4'),
    ({'model.args.encoder_spec': {'name': 'liif', 'args': {'encoder_spec': ENCODER, 'imnet_spec': LIIF}}},
     'encoder_spec: liif is not an encoder'),
    ({'model': ENCODER}, 'model edsr-baseline is only a part of a model: give a decoder with an encoder_spec'),
    ({'model': {'name': 'liif', 'args': {'encoder_spec': ENCODER}}}, 'without an imnet_spec the encoder must make the'),
    ({'resume': 'a.pth', 'encoder_from': 'b.pth'}, 'tiny.yaml: resume, weights_from and encoder_from exclude'),
    ({'seed': -1}, 'tiny.yaml: seed must be 0 or more, and below 2^63, not -1'),
    ({'seed': 2 ** 70}, 'tiny.yaml: seed must be 0 or more, and below 2^63'),
    ({'eval_type': 'div2k-2'}, 'tiny.yaml: val_dataset: eval_type div2k-2 needs whole images: remove it, or s'),
])
def test_a_model_that_cannot_be_made_or_measured_is_refused_before_training(project, changes, message):
    project.change(changes)
    assert message in error(project)


@pytest.mark.parametrize('text, message', [
    ('', 'tiny.yaml: holds no keys'),
    ('- epoch_max', 'tiny.yaml: holds no keys'),
    ('epoch_max: [1', 'tiny.yaml: is not valid YAML ('),
    ('epoch_max: 1\nmodel: {}\nepoch_max: 2', "tiny.yaml: key 'epoch_max' is given twice, the second time in line 3"),
    ('model: {name: a, name: b}', "tiny.yaml: key 'name' is given twice, the second time in line 1"),
    ('model: !!python/object/apply:os.mkdir [run]', 'tiny.yaml: is not valid YAML ('),
])
def test_a_file_that_is_no_config_is_refused_and_runs_no_code(project, text, message):
    (project.folder / 'tiny.yaml').write_text(text)
    assert message in error(project)
    assert not (project.folder / 'run').exists()


def test_a_value_of_any_length_is_quoted_in_short(project):
    values = ['x' * 100] * 1000
    project.change({'model.args.imnet_spec.args.hidden_list': {'a': [values] * 50}})
    assert len(error(project)) < 700


# --- in processes of their own ---------------------------------------------------------------------------------------


def test_a_config_that_is_not_there_ends_the_process_with_one_line(project):
    assert error_of_process(project, '--config', 'large.yaml') == (
        'large.yaml: cannot be read (No such file or directory)')


@pytest.mark.parametrize('workers', [0, 1])
def test_a_damaged_photo_ends_the_process_with_one_line_that_names_it(project, workers):
    photo = project.folder / 'photos/4.png'
    photo.write_bytes(photo.read_bytes()[:-500])
    project.change({'train_dataset.num_workers': workers})
    assert 'photos/4.png: cannot be read as an image (' in error_of_process(project)
