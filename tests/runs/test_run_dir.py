"""The RUN DIR: what travels in it, and what is refused."""

import json

import pytest

from core.common.errors import InputError
from core.config.config import Config
from core.data.data_dir import DataDir
from core.runs import run_dir
from tests.support import tiny_model
from tests.support.files import edited_json, snapshot
from tests.support.sample_dirs import TINY_RUN

CONFIG = Config().override(TINY_RUN)


def test_all_that_a_later_step_needs_travels_in_the_run(sample_data, tmp_path):
    data = DataDir(sample_data)
    run_dir.create(tmp_path / 'run', CONFIG, data)
    run = run_dir.Run(tmp_path / 'run')
    assert run.config == CONFIG
    assert run.vocabulary == data.vocabulary
    assert run.max_length == data.max_length
    assert run.spec.to_dict() == data.encoder
    assert run.data().path == data.path.absolute()
    assert run.encoder().identity() == run.spec.identity()
    with tiny_model.tf_graph():
        model = run.make_model()
    rows, cols = run.spec.grid
    sizes = (model.L, model.D, model.H, model.T, model.V)
    assert sizes == (rows * cols, run.spec.dim, 12, data.max_length + 1, len(data.vocabulary))


def test_the_way_to_cut_captions_travels_too(sample_data, data_copy, tmp_path):
    run_dir.create(tmp_path / 'words', CONFIG, DataDir(sample_data)).close()
    with edited_json(data_copy / 'manifest.json') as manifest:
        manifest['tokens'] = 'raw'
    data = DataDir(data_copy)
    run_dir.create(tmp_path / 'run', CONFIG, data).close()
    assert run_dir.Run(tmp_path / 'run').tokens == 'raw'
    with pytest.raises(InputError, match='another vocabulary, caption length or way to cut'):
        run_dir.create(tmp_path / 'words', CONFIG, data)
    with edited_json(tmp_path / 'words' / 'config.json') as config:
        assert config['data'].pop('tokens') == 'words'
    assert run_dir.Run(tmp_path / 'words').tokens == 'words'
    with edited_json(tmp_path / 'run' / 'config.json') as config:
        config['data']['tokens'] = 'letters'
    with pytest.raises(InputError, match="config.json: has captions cut in an unknown way, 'let"):
        run_dir.Run(tmp_path / 'run')


def test_going_on_admits_longer_training_only(sample_data, tmp_path):
    data = DataDir(sample_data)
    run_dir.create(tmp_path / 'run', CONFIG, data)
    run_dir.create(tmp_path / 'run', CONFIG.override(['n_epochs=9', 'print_every=7']), data)
    assert run_dir.Run(tmp_path / 'run').config.training.n_epochs == 9
    checkpoints = tmp_path / 'run' / 'checkpoints'
    checkpoints.mkdir()
    (checkpoints / 'step-3.json').write_text('{"step": 3}')
    before = (tmp_path / 'run' / 'config.json').read_bytes()
    with pytest.raises(InputError, match='dim_hidden=12, now it is 13'):
        run_dir.create(tmp_path / 'run', CONFIG.override(['dim_hidden=13']), data)
    assert (tmp_path / 'run' / 'config.json').read_bytes() == before


def test_before_training_a_mistaken_option_can_be_corrected(sample_data, tmp_path):
    data = DataDir(sample_data)
    run_dir.create(tmp_path / 'run', CONFIG, data).close()
    run_dir.create(tmp_path / 'run', CONFIG.override(['dim_hidden=13']), data)
    assert run_dir.Run(tmp_path / 'run').config.model.dim_hidden == 13


def test_features_of_another_kind_are_refused_by_name(sample_dirs, sample_data, tmp_path):
    run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    run, other = run_dir.Run(tmp_path / 'run'), DataDir(sample_dirs.data(layer='conv1_2'))
    with pytest.raises(InputError, match="layer 'conv1_2' instead of 'conv2_2'"):
        run.check_features(other)
    with pytest.raises(InputError, match='weights_sha256'):
        run.check_features(DataDir(sample_dirs.data(seed=2)))


@pytest.mark.parametrize('damage', ['{', '[]', '{}', '{"data": {"encoder": {}}}'])
def test_damaged_config_is_one_error(sample_data, tmp_path, damage):
    run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    (tmp_path / 'run' / 'config.json').write_text(damage)
    with pytest.raises(InputError, match='config.json'):
        run_dir.Run(tmp_path / 'run')


def test_strangers_directory_is_left_alone(sample_data, tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(InputError, match='not empty and not a run'):
        run_dir.create(tmp_path, CONFIG, DataDir(sample_data))
    assert [path.name for path in tmp_path.iterdir()] == ['thesis.txt']


def test_no_model_yet_says_so(sample_data, tmp_path):
    run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    with pytest.raises(InputError, match='no trained model here yet'):
        run_dir.Run(tmp_path / 'run').best().prefix()


def test_config_is_plain_json(sample_data, tmp_path):
    run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    entries = json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert set(entries) == {'model', 'training', 'decoding', 'data'}
    assert entries['model']['dim_hidden'] == 12 and entries['data']['encoder']['layer'] == 'conv2_2'


def test_other_images_of_the_same_kind_are_refused(sample_data, scenes, tmp_path):
    from core import datasets
    from core.data import prepare
    from core.encoders import encoder

    data = DataDir(sample_data)
    run_dir.create(tmp_path / 'run', CONFIG, data)
    records = datasets.select(datasets.read('shapes', scenes), limit=2)
    prepare.prepare(records, encoder.EncoderSpec.from_dict(data.encoder), tmp_path / 'few',
                    'shapes', vocabulary=data.vocabulary, say=lambda line: None)
    with pytest.raises(InputError, match='other images or captions'):
        run_dir.create(tmp_path / 'run', CONFIG, DataDir(tmp_path / 'few'))


def test_a_run_in_use_is_left_as_it_is(sample_data, tmp_path):
    data = DataDir(sample_data)
    with run_dir.create(tmp_path / 'run', CONFIG, data):
        before = (tmp_path / 'run' / 'config.json').read_bytes()
        with pytest.raises(InputError, match='another train.py is at work'):
            run_dir.create(tmp_path / 'run', CONFIG.override(['n_epochs=9']), data)
    assert (tmp_path / 'run' / 'config.json').read_bytes() == before


def imported(place, sample_data):
    """Return a run as `python -m core import` makes it: without data, of unknown weights."""
    run_dir.create(place, CONFIG, DataDir(sample_data)).close()
    config = json.loads((place / 'config.json').read_text())
    config['data'].update(path=None, records_sha256=None, dataset=None)
    config['data']['encoder'].update(weights='unknown', weights_sha256='unknown')
    (place / 'config.json').write_text(json.dumps(config))
    return run_dir.Run(place)


def test_imported_runs_take_data_of_any_weights_but_of_their_layer_only(
    sample_data, sample_dirs, sample_run, tmp_path):
    run = imported(tmp_path / 'run', sample_data)
    assert run.imported and not run_dir.Run(sample_run).imported
    with pytest.raises(InputError, match='imported run .*--data DATA'):
        run.data()
    for seed in (1, 2):
        assert run.data(sample_dirs.data(seed=seed)).path == sample_dirs.data(seed=seed)
    with pytest.raises(InputError, match="layer 'conv1_2' instead of 'conv2_2'"):
        run.data(sample_dirs.data(layer='conv1_2'))
    with tiny_model.tf_graph():
        assert len(run.vocabulary) == run.make_model().V


def test_imported_runs_ask_for_their_encoders_weights(sample_data, tmp_path):
    run = imported(tmp_path / 'run', sample_data)
    with pytest.raises(InputError, match='does not know the weights .*--weights'):
        run.encoder()
    assert run.encoder('random').layer == 'conv2_2'


def test_imported_runs_are_not_trained_over(sample_data, tmp_path):
    imported(tmp_path / 'run', sample_data)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match='--pretrained-model'):
        run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    assert snapshot(tmp_path) == before


def test_moved_data_are_named_with_the_way_out(sample_data, tmp_path):
    run_dir.create(tmp_path / 'run', CONFIG, DataDir(sample_data))
    config = json.loads((tmp_path / 'run' / 'config.json').read_text())
    config['data']['path'] = str(tmp_path / 'gone')
    (tmp_path / 'run' / 'config.json').write_text(json.dumps(config))
    with pytest.raises(InputError, match='--data NEW'):
        run_dir.Run(tmp_path / 'run').data()
