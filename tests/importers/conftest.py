"""Foreign checkpoints, written once, and an import of one; no test changes them."""

import pytest

from core.importers.make_run import make_run
from core.runs import run_dir
from tests.support import tf1_checkpoint as tf1


@pytest.fixture(scope='session')
def tf1_checkpoint(tmp_path_factory):
    """Return a directory with the TF1 code's checkpoint `model-7` and vocabulary `words.pkl`."""
    directory = tmp_path_factory.mktemp('tf1')
    tf1.write(directory / 'model-7', tf1.draw())
    tf1.write_words(directory / 'words.pkl')
    return directory


@pytest.fixture(scope='session')
def tf1_run(tf1_checkpoint):
    """Return the Run that was made of it, in `run` beside it."""
    make_run(tf1_checkpoint / 'model-7', tf1_checkpoint / 'words.pkl', tf1_checkpoint / 'run',
             encoder=tf1.ENCODER, max_length=5, say=lambda line: None)
    return run_dir.Run(tf1_checkpoint / 'run')


@pytest.fixture(scope='session')
def tf2_checkpoint(tmp_path_factory):
    """Return a checkpoint of the TF2 tutorial: (prefix, encoder, decoder)."""
    import tf_keras

    from tests.support import tf2_tutorial_model as tf2

    encoder, decoder = tf2.tutorial(tf_keras)
    return tf2.save(tmp_path_factory.mktemp('tf2'), encoder, decoder), encoder, decoder
