"""The training gradient of hard attention, run by run.

Of the model and the batch of core.reference.sample_model.
"""

import contextlib

import numpy as np

from core.model.caption_generator import CaptionGenerator
from core.reference import sample_model
from core.reference.location_paths import PLAIN
from core.runtime.backend import tf, tf1
from tests.support import tiny_model


def build(**options):
    """Build the CaptionGenerator in float64.

    If not told: PLAIN, without batch normalisation and XLA.
    """
    return CaptionGenerator(sample_model.WORD_TO_IDX, **sample_model.SIZES, attention='hard',
                            dropout=False, dtype=tf.float64,
                            **{**PLAIN, 'batch_norm': False, 'jit': False, **options})


class DrawnGradients:
    """Made by `drawn_gradients`.

    Attributes:
        model: CaptionGenerator. session: with the values of the variables.
    """

    def __init__(self, model, gradient, session):
        self.model, self._gradient, self.session = model, gradient, session

    def run(self, seed, repeats=1, fetch=None, feed=None):
        """Return the gradient (P,) for the sample's batch, `repeats` times over.

        With `fetch`, (P,) and its value.
        """
        features, captions = sample_model.batch()
        feed = {self.model.inputs: np.repeat(features, repeats, axis=0),
                self.model.captions: np.repeat(captions, repeats, axis=0),
                self.model.dropout_seed: seed, **(feed or {})}
        if fetch is None:
            return self.session.run(self._gradient, feed)
        return tuple(self.session.run([self._gradient, fetch], feed))


@contextlib.contextmanager
def drawn_gradients(v, **options):
    """Give DrawnGradients by the variables `v` (name -> value), in their order."""
    with tf.Graph().as_default():
        model = build(**options)
        loss = model.build_model()
        by_name = {variable.op.name: variable for variable in tf1.trainable_variables()}
        assert set(by_name) == set(v)
        found = tf1.gradients(loss, [by_name[name] for name in v])
        gradient = tf.concat([tf.reshape(tf.convert_to_tensor(part), [-1]) for part in found],
                             axis=0)
        with tiny_model.session(model, v) as session:
            yield DrawnGradients(model, gradient, session)
