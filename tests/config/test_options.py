"""Options: JSON both ways, --set, and what is refused."""

import dataclasses
import json

import pytest

from core.common.errors import InputError
from core.config import config, decoding, model, presets, training
from core.config.config import Config
from tests.support.scripts import ROOT

RECIPES = sorted((ROOT / 'data' / 'recipes').glob('*.json'))


def other(field):
    """A valid value that is not the default."""
    if field.metadata['choices']:
        return next(choice for choice in field.metadata['choices'] if choice != field.default)
    if field.type is bool:
        return not field.default
    if field.type is str:
        return field.default + 'text'
    return field.type(field.default + 1) if field.type is int else field.default * 0.5 + 0.25


def test_every_option_goes_to_json_and_back(tmp_path):
    sections = {
        name: {field.name: other(field) for field in dataclasses.fields(kind)}
        for name, kind in config.SECTIONS.items()
    }
    # Back to the defaults where the others exclude a change.
    sections['model'].update(cell='lstm', carry_state=True, dropout=True, scheduled_sampling=0.0,
                             sentinel=False, self_critical=False)
    sections['decoding'].update(sample=False, sample_temperature=1.0, top_k=0, top_p=1.0)
    changed = Config.from_dict(sections)
    assert changed.to_dict() == sections
    changed.save(tmp_path / 'config.json')
    assert json.loads((tmp_path / 'config.json').read_text()) == sections
    assert Config.load(tmp_path / 'config.json') == changed != Config()


def test_options_without_effect_are_named():
    assert Config().idle() == []
    idle = Config().override(['baseline=none', 'lambda_e=0.1', 'momentum=0.5', 'bucket_width=2',
                              'dropout=false', 'dropout_rate=0.1', 'finetune_rate=1.0']).idle()
    assert [text.split()[0] for text in idle] == ['lambda_e', 'baseline', 'dropout_rate',
                                                  'momentum', 'bucket_width', 'finetune_rate']
    assert 'attention=hard' in idle[0]
    assert Config().override(['attention=hard', 'baseline=none', 'update_rule=momentum',
                              'momentum=0.5']).idle() == []
    assert len(Config().override(['attention=hard', 'lambda_r=0', 'reward=to_go']).idle()) == 1


def test_what_is_left_out_keeps_its_default(tmp_path):
    path = tmp_path / 'few.json'
    path.write_text('{"model": {"dim_hidden": 7}}')
    loaded = Config.load(path)
    assert loaded == Config(model=model.ModelConfig(dim_hidden=7))
    assert loaded.training == training.TrainingConfig()


def test_more_entries_are_saved_beside_the_sections(tmp_path):
    Config().save(tmp_path / 'config.json', data={'path': 'somewhere'})
    saved = json.loads((tmp_path / 'config.json').read_text())
    assert saved.pop('data') == {'path': 'somewhere'}
    assert Config.from_dict(saved) == Config()


def test_set_values_are_typed():
    changed = Config().override([
        'dim_hidden=48', 'learning_rate=4e-4', 'clip_norm=3', 'selector=false', 'prev2out=False',
        'update_rule=rmsprop', ' max_len = 9', 'dim_hidden=64',
    ])
    assert changed.model.dim_hidden == 64  # the last one counts
    assert changed.training.learning_rate == 4e-4
    assert changed.training.clip_norm == 3.0 and isinstance(changed.training.clip_norm, float)
    assert changed.model.selector is False and changed.model.prev2out is False
    assert changed.training.update_rule == 'rmsprop'
    assert changed.decoding.max_len == 9
    assert Config() == Config().override([])


@pytest.mark.parametrize('assignment, said', [
    ('dim_hiden=512', "unknown option 'dim_hiden'; did you mean dim_hidden?"),
    ('zzz=1', "unknown option 'zzz'; known: dim_embed, dim_hidden"),
    ('dim_hidden', 'expected name=value, for example --set dim_hidden=512'),
    ('dim_hidden=big', "dim_hidden must be a whole number, not 'big'"),
    ('dim_hidden=1.5', 'dim_hidden must be a whole number, not 1.5'),
    ('dim_hidden=true', 'dim_hidden must be a whole number, not True'),
    ('dim_hidden=', "dim_hidden must be a whole number, not ''"),
    ('dim_hidden=0', 'dim_hidden must be at least 1, not 0'),
    ('dropout_rate=0.99', 'dropout_rate must be at most 0.95, not 0.99'),
    ('learning_rate=-1', 'learning_rate must be at least 0, not -1.0'),
    ('learning_rate=NaN', 'learning_rate must be a finite number, not nan'),
    ('learning_rate=Infinity', 'learning_rate must be a finite number, not inf'),
    ('learning_rate=1e999', 'learning_rate must be a finite number, not inf'),
    ('learning_rate=1' + 400 * '0', 'learning_rate must be a finite number, not inf'),
    ('learning_rate=true', 'learning_rate must be a number, not True'),
    ('learning_rate="fast"', "learning_rate must be a number, not 'fast'"),
    ('selector=1', 'selector must be true or false, not 1'),
    ('update_rule=3', 'update_rule must be a text, not 3'),
    ('update_rule=adm', "update_rule must be one of adam, rmsprop, momentum, sgd, not 'adm'"),
    ('seed=null', 'seed must be a whole number, not None'),
])
def test_set_refuses(assignment, said):
    with pytest.raises(InputError) as caught:
        Config().override([assignment])
    assert '--set' in str(caught.value) and said in str(caught.value)


@pytest.mark.parametrize('text, said', [
    ('{"modl": {}}', "unknown section 'modl'; did you mean model?"),
    ('{"model": {"seed": 3}}', "unknown option 'seed' in 'model'"),
    ('{"training": {"momentun": 3}}', "unknown option 'momentun' in 'training'; did you mean "
     "momentum?"), ('{"training": {"n_epochs": 0}}', 'n_epochs must be at least 1, not 0'),
    ('{"training": {"learning_rate": NaN}}', 'learning_rate must be a finite number'),
    ('{"model": 5}', "section 'model' must be a JSON object"),
    ('[1]', 'expected a JSON object with the sections model, training, decoding'),
    ('{"model"', 'is not JSON'), ('\udcff', 'is not JSON'), (None, 'cannot be read')])
def test_files_that_are_refused_name_themselves(tmp_path, text, said):
    path = tmp_path / 'mine.json'
    if text is not None:
        path.write_bytes(text.encode('utf8', 'surrogateescape'))
    with pytest.raises(InputError) as caught:
        Config.load(path)
    assert str(path) in str(caught.value) and said in str(caught.value)


def test_names_are_unique_and_options_lists_them_all():
    fields = [(section, field) for section, kind in config.SECTIONS.items()
              for field in dataclasses.fields(kind)]
    names = [field.name for _, field in fields]
    assert len(set(names)) == len(names)
    listed = list(config.options())
    assert [row[:2] for row in listed] == [(section, field.name) for section, field in fields]
    for row, (_, field) in zip(listed, fields, strict=True):
        assert type(row.default).__name__ == row.type_name and row.default == field.default, row
        assert row.help and '\n' not in row.help, row
        assert row.choices is None or row.default in row.choices, row
    assert {field.name for field in dataclasses.fields(Config)} == set(config.SECTIONS)


def test_options_of_published_checkpoints_come_last_in_their_table():
    marked = [row.compatibility for row in config.options() if row.section == 'model']
    assert 0 < sum(marked) < len(marked) and marked == sorted(marked)
    assert not any(row.compatibility for row in config.options() if row.section != 'model')


@pytest.mark.parametrize('row', [row for row in config.options() if row.compatibility],
                         ids=lambda row: row.name)
def test_options_of_published_checkpoints_are_set_as_all_others(row):
    model_options = {'cell': 'gru', 'initial_state': 'zero'} if row.name == 'carry_state' else {}
    value = other({field.name: field for field in dataclasses.fields(model.ModelConfig)}[row.name])
    changed = Config.from_dict({'model': {**model_options, row.name: value}})
    assert getattr(changed.model, row.name) == value
    assert Config.from_dict({'model': model_options}).override(
        [f'{row.name}={json.dumps(value)}']) == changed
    with pytest.raises(InputError, match=f'did you mean {row.name}'):
        Config().override([f'{row.name}s=1'])


def test_every_option_of_published_checkpoints_is_one_that_a_preset_or_an_importer_takes():
    taken = {name for preset in presets.names()
             for name, value in presets.config(preset).to_dict()['model'].items()
             if value != getattr(model.ModelConfig(), name)}
    read = ''.join(path.read_text() for path in (ROOT / 'core' / 'importers').glob('*.py'))
    for row in config.options():
        assert not row.compatibility or row.name in taken or f"'{row.name}'" in read, row.name


def test_defaults_pass_their_own_checks():
    assert Config.from_dict(Config().to_dict()) == Config()


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize('path', RECIPES, ids=lambda path: path.stem)
def test_recipes_load(path):
    loaded = Config.load(path)
    assert loaded != Config()
    for section, values in json.loads(path.read_text()).items():
        assert {name: loaded.to_dict()[section][name] for name in values} == values


@pytest.mark.parametrize(('assignments', 'message'), [
    (['beam_width=3', 'length_penalty=-1'], 'length_penalty must be at least 0'),
    (['beam_width=3', 'length_penalty=nan'], 'length_penalty must be a number'),
    (['length_penalty=0.5'], 'length_penalty needs beam_width of 2 or more'),
    (['min_length=7', 'max_len=6'], 'min_length=7 is more than max_len=6'),
    (['beam_width=3', 'beam_groups=2', 'diversity_penalty=1'], 'beam_groups=2 must divide '
     'beam_width=3'), (['beam_width=4', 'beam_groups=2'], 'beam_groups needs diversity_penalty'),
    (['beam_width=4', 'diversity_penalty=0.5'], 'diversity_penalty needs beam_groups'),
    (['sample=true', 'beam_width=2'], 'sample=true needs beam_width=1'),
    (['top_p=0.5'], 'need sample=true'), (['top_k=5'], 'need sample=true'),
    (['sample_temperature=0.5'], 'need sample=true'),
    (['sample=true', 'top_p=0'], 'top_p must be at least'),
    (['sample=true', 'sample_temperature=0'], 'sample_temperature must be at least')])
def test_decoding_that_does_not_fit_is_refused(assignments, message):
    with pytest.raises(InputError, match=message):
        Config().override(assignments)


def test_decoding_of_older_runs_is_greedy():
    loaded = Config.from_dict({'decoding': {'max_len': 9, 'decode_batch': 3}}).decoding
    assert loaded == decoding.DecodingConfig(max_len=9, decode_batch=3)
    assert (loaded.beam_width, loaded.sample, loaded.min_length, loaded.no_repeat_ngram) == (
        1, False, 0, 0)
