"""Checkpoints: what is complete is found, what is not is ignored, and everything comes back."""

import json

import numpy as np
import pytest

from core.common.errors import InputError
from core.runtime.backend import tf1
from core.training import checkpoints as module
from core.training.checkpoints import BestModel, Checkpoints, initialize_from, latest_state
from tests.support import tiny_model


@pytest.fixture
def model(graph):
    return tiny_model.build()


def names(directory):
    return sorted(path.name for path in directory.iterdir())


def test_save_and_restore(model, tmp_path):
    checkpoints = Checkpoints(tmp_path / 'c', model.variables)
    assigned = tiny_model.values(model)
    with tiny_model.session(model, assigned) as session:
        checkpoints.save(session, {'step': 3, 'waited': 1})
    with tiny_model.session(model) as session:
        state = latest_state(tmp_path / 'c')
        checkpoints.restore(session, state)
        for name, value in tiny_model.fetch(session, model).items():
            np.testing.assert_array_equal(value, assigned[name].astype(np.float32), err_msg=name)
    assert state == {'step': 3, 'waited': 1}


def test_nothing_yet(model, tmp_path):
    assert latest_state(tmp_path / 'c') is None
    assert BestModel(tmp_path / 'best', model.variables).info() is None
    with pytest.raises(InputError, match='no trained model here yet'):
        BestModel(tmp_path / 'best').prefix()


def test_only_the_last_are_kept_in_the_order_of_their_steps(model, tmp_path):
    checkpoints = Checkpoints(tmp_path, model.variables, keep=2)
    with tiny_model.session(model) as session:
        for step in (8, 9, 10, 100):
            checkpoints.save(session, {'step': step})
    assert {name.split('.')[0] for name in names(tmp_path)} == {'step-10', 'step-100'}
    assert latest_state(checkpoints.directory)['step'] == 100


def test_half_written_checkpoints_are_ignored(model, tmp_path):
    checkpoints = Checkpoints(tmp_path, model.variables)
    with tiny_model.session(model) as session:
        checkpoints.save(session, {'step': 5})
        checkpoints.save(session, {'step': 7})
    (tmp_path / 'step-7.json').unlink()  # killed before it was complete
    (tmp_path / '.step-9.json.abc').write_text('{"ste')
    (tmp_path / 'step-9.data-00000-of-00001').write_bytes(b'half')
    (tmp_path / 'step-copy.json').write_text('{}')
    (tmp_path / 'notes.json').write_text('{}')
    assert latest_state(checkpoints.directory) == {'step': 5}
    with tiny_model.session(model) as session:
        checkpoints.restore(session, latest_state(checkpoints.directory))
        checkpoints.save(session, {'step': 9})
    assert latest_state(checkpoints.directory) == {'step': 9}


def test_what_a_kill_left_does_not_pile_up(model, tmp_path):
    checkpoints = Checkpoints(tmp_path, model.variables, keep=1)
    with tiny_model.session(model) as session:
        checkpoints.save(session, {'step': 5})
        (tmp_path / 'step-5.json').unlink()
        checkpoints.save(session, {'step': 6})
    assert {name.split('.')[0] for name in names(tmp_path)} == {'step-6'}


def test_damaged_checkpoint_is_one_clear_line(model, tmp_path):
    checkpoints = Checkpoints(tmp_path, model.variables)
    with tiny_model.session(model) as session:
        checkpoints.save(session, {'step': 5})
        (tmp_path / 'step-5.index').write_bytes(b'no index')
        with pytest.raises(InputError, match='step-5: not a TensorFlow checkpoint'):
            checkpoints.restore(session, {'step': 5})
        checkpoints.save(session, {'step': 5})
        data = tmp_path / 'step-5.data-00000-of-00001'
        data.write_bytes(data.read_bytes()[:100])
        with pytest.raises(InputError, match='step-5: cannot be restored, it is damaged'):
            checkpoints.restore(session, {'step': 5})
    (tmp_path / 'step-5.json').write_text('{"step": ')
    with pytest.raises(InputError, match='step-5.json'):
        latest_state(checkpoints.directory)


@pytest.mark.parametrize(('name', 'part'), [
    ('load_checkpoint', 'not a TensorFlow checkpoint'),
    ('restore', 'cannot be restored, it is damaged'),
])
def test_what_the_reader_raises_for_short_data_is_one_clear_line(model, tmp_path, monkeypatch,
                                                                 name, part):
    """The reader of TensorFlow 2.21 raises IndexError there."""
    checkpoints = Checkpoints(tmp_path, model.variables)

    def fail(*_):
        raise IndexError('Read less bytes than requested')

    with tiny_model.session(model) as session:
        checkpoints.save(session, {'step': 5})
        owner = module.tf.train if name == 'load_checkpoint' else tf1.train.Saver
        monkeypatch.setattr(owner, name, fail)
        with pytest.raises(InputError, match=rf'step-5: {part} \(Read less bytes'):
            checkpoints.restore(session, {'step': 5})


def test_first_line():
    assert module.first_line(ValueError('\n one \ntwo')) == 'one'
    assert module.first_line(MemoryError()) == 'MemoryError'


def test_checkpoint_of_another_model_is_refused(model, tmp_path):
    checkpoints = Checkpoints(tmp_path, model.variables)
    with tiny_model.session(model) as session:
        checkpoints.save(session, {'step': 5})
    with tiny_model.tf_graph():
        other = tiny_model.build(dim_hidden=tiny_model.H + 1)
        with tiny_model.session(other) as session, pytest.raises(InputError, match='does not fit'):
            Checkpoints(tmp_path, other.variables).restore(session, {'step': 5})


def test_cannot_write(model, tmp_path):
    (tmp_path / 'step-5.json').mkdir()  # a directory cannot be replaced by a file, not even by root
    with (tiny_model.session(model) as session,
          pytest.raises(InputError, match='cannot write a checkpoint')):
        Checkpoints(tmp_path, model.variables).save(session, {'step': 5})


def test_best_model_replaces_the_previous(model, tmp_path):
    best = BestModel(tmp_path, model.variables)
    first, second = tiny_model.values(model, 1), tiny_model.values(model, 2)
    with tiny_model.session(model, first) as session:
        best.save(session, {'step': 4, 'scores': {'Bleu_4': 0.1}})
        tiny_model.assign(session, model, second)
        best.save(session, {'step': 8, 'scores': {'Bleu_4': 0.2}})
    assert names(tmp_path) == ['best.json', 'step-8.data-00000-of-00001', 'step-8.index']
    assert json.loads((tmp_path / 'best.json').read_text())['scores'] == {'Bleu_4': 0.2}
    with tiny_model.session(model, first) as session:
        BestModel(tmp_path, model.variables).restore(session)
        np.testing.assert_array_equal(tiny_model.fetch(session, model)['logits/w_h'],
                                      second['logits/w_h'].astype(np.float32))


def test_best_model_that_was_killed_half_way_is_the_previous_one(model, tmp_path):
    best = BestModel(tmp_path, model.variables)
    with tiny_model.session(model, tiny_model.values(model)) as session:
        best.save(session, {'step': 4})
        (tmp_path / 'step-8.data-00000-of-00001').write_bytes(b'half')
        (tmp_path / 'step-8.index').write_bytes(b'half')
        assert best.info() == {'step': 4}
        best.restore(session)


def test_initialize_from(model, tmp_path):
    assigned = tiny_model.values(model)
    with tiny_model.session(model, assigned) as session:
        prefix = tf1.train.Saver(model.variables).save(session, str(tmp_path / 'm'))
    with tiny_model.session(model) as session:
        initialize_from(session, prefix, model.variables)
        assert tiny_model.fetch(session, model)['selector/b'] == np.float32(assigned['selector/b'])
        with pytest.raises(InputError, match='nothing: not a TensorFlow checkpoint'):
            initialize_from(session, tmp_path / 'nothing', model.variables)


def test_initialize_from_names_what_does_not_fit(graph, tmp_path):
    small = tiny_model.build(selector=False)
    with tiny_model.session(small) as session:
        prefix = tf1.train.Saver(small.variables).save(session, str(tmp_path / 'm'))
    with tiny_model.tf_graph():
        large = tiny_model.build(dim_embed=8)
        with tiny_model.session(large) as session, pytest.raises(InputError) as caught:
            initialize_from(session, prefix, large.variables)
    message = str(caught.value)
    assert 'selector/w [11, 1] (there: missing)' in message
    assert 'word_embedding/w [13, 8] (there: [13, 6])' in message
    assert 'project_features' not in message
