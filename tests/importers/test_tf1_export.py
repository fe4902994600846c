"""Back to the TF1 code: what is exported restores there, and models that it has not are refused."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

from core.common.errors import InputError
from core.config.config import Config
from core.config.model import ModelConfig
from core.importers import tf1_tutorial as tf1_code
from core.importers.make_run import make_run
from core.runs import run_dir
from core.runtime.backend import tf, tf1
from tests.support.files import snapshot
from tests.support.tf1_checkpoint import ENCODER, NAMES, D, H, L, M, V, variables_of


def test_the_old_code_restores_what_is_exported(tf1_run, tmp_path):
    lines = []
    tf1_code.export(tf1_run, tmp_path / 'old' / 'model-1', say=lines.append)
    ours = variables_of(tf1_run.best().prefix())
    with tf.Graph().as_default():
        shapes = {name: tuple(V + 1 if size == V else size for size in shape)
                  for name, shape in NAMES.items()}
        variables = [tf1.get_variable(name, shape, use_resource=False)
                     for name, shape in shapes.items()]
        with tf1.Session() as session:
            tf1.train.Saver().restore(session, tf1.train.latest_checkpoint(str(tmp_path / 'old')))
            for variable in variables:
                np.testing.assert_array_equal(session.run(variable), ours[variable.op.name])
    assert set(ours) == set(NAMES)
    words = json.loads((tmp_path / 'old' / 'model-1-word_to_idx.json').read_text())
    assert words == tf1_run.vocabulary.word_to_idx
    assert sorted(path.name for path in (tmp_path / 'old').iterdir()) == [
        'checkpoint', 'model-1-word_to_idx.json', 'model-1.data-00000-of-00001', 'model-1.index']
    arguments = f'dim_feature=[{L}, {D}], dim_embed={M}, dim_hidden={H}, n_time_step=6'
    assert f'{arguments}, prev2out=True' in lines[0]

    # and what is imported again is equal
    make_run(tmp_path / 'old', tmp_path / 'old' / 'model-1-word_to_idx.json', tmp_path / 'again',
                       encoder=ENCODER, max_length=5, say=lines.append)
    again = run_dir.Run(tmp_path / 'again')
    assert again.config == tf1_run.config
    assert again.vocabulary == tf1_run.vocabulary
    assert again.spec == tf1_run.spec
    exported = variables_of(again.best().prefix())
    assert set(exported) == set(ours) and all((exported[name] == ours[name]).all() for name in ours)

    # a second one beside it changes neither the first nor its state file; the same name is refused
    before = snapshot(tmp_path / 'old')
    tf1_code.export(tf1_run, tmp_path / 'old' / 'model-2', say=lines.append)
    assert before.items() <= snapshot(tmp_path / 'old').items()
    before = snapshot(tmp_path)
    for prefix, part in (('old/model-1', 'exists already'), ('old', 'is a directory')):
        with pytest.raises(InputError, match=part):
            tf1_code.export(tf1_run, tmp_path / prefix)
    assert snapshot(tmp_path) == before


def test_every_option_is_either_the_old_codes_or_refused():
    fixed = {'batch_norm', 'feature_layer', 'initial_state', 'initial_layers',
             'attention_activation', 'attention_layers', 'attention_bias', 'score_bias', 'sentinel',
             'cell',
             'forget_bias', 'cell_input', 'carry_state', 'first_word', 'output_activation',
             'output_layers', 'temperature', 'decode_context'}
    assert fixed ^ tf1_code.FREE == {field.name for field in dataclasses.fields(ModelConfig)}


@pytest.mark.parametrize(('assignments', 'parts'), [
    (['cell=gru'], ['cell=gru']),
    (['attention_activation=tanh', 'score_bias=true', 'initial_layers=2'],
     ['attention_activation=tanh', 'score_bias=true', 'initial_layers=2']),
    (['attention_size=64'], ['attention_size=64']),
    (['sentinel=true', 'selector=false'], ['sentinel=true']),
    (['prev2out=false', 'output_size=9'], ['output_size=9']),
    (['attention=hard', 'decode_context=argmax'], ['decode_context=argmax']),
    (['finetune_from=conv2_1'], ['finetune_from=conv2_1']),
])
def test_models_that_the_old_code_has_not_are_refused_by_name(tf1_run, tmp_path, assignments,
                                                              parts):
    shutil.copytree(tf1_run.path, tmp_path / 'run')
    entries = json.loads((tf1_run.path / 'config.json').read_text())
    data = entries.pop('data')
    Config.from_dict(entries).override(assignments).save(tmp_path / 'run' / 'config.json',
                                                         data=data)
    before = snapshot(tmp_path)
    with pytest.raises(InputError) as caught:
        tf1_code.export(run_dir.Run(tmp_path / 'run'), tmp_path / 'old' / 'm')
    assert all(part in str(caught.value) for part in ['the TF1 code has no', *parts])
    assert 'dim_' not in str(caught.value)
    assert snapshot(tmp_path) == before


def test_options_that_do_not_reach_the_decoder_are_exported(tf1_run, tmp_path):
    shutil.copytree(tf1_run.path, tmp_path / 'run')
    entries = json.loads((tf1_run.path / 'config.json').read_text())
    data = entries.pop('data')
    config = Config.from_dict(entries).override(
        ['attention=hard', f'attention_size={D}', f'output_size={M}', 'label_smoothing=0.1',
         'mask_padding=false'])
    config.save(tmp_path / 'run' / 'config.json', data=data)
    tf1_code.export(run_dir.Run(tmp_path / 'run'), tmp_path / 'm', say=lambda line: None)
    assert set(variables_of(tmp_path / 'm')) == set(NAMES)
