"""Every option of the model against plain NumPy (`core.reference.variants`)."""

import numpy as np
import pytest

from core.reference import variants
from core.runtime.backend import tf
from tests.support import tiny_model
from tests.support.model_cases import CASES

# Hard attention has test_hard_gradient.py, the sentinel test_caption_generator.py.
SOFT = [name for name, options in CASES.items()
        if options.get('attention') != 'hard' and 'sentinel' not in options]


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@pytest.mark.parametrize('name', SOFT)
def test_the_graph_is_that_of_numpy(graph, name, training):
    """Without what is drawn: dropout, words that are replaced, words of the model's own."""
    plain = {'dropout': False, 'dropout_mask': 'step', 'word_dropout': 0, 'scheduled_sampling': 0,
             'label_smoothing': 0}
    model = tiny_model.build(dtype=tf.float64, **{**CASES[name], **plain})
    loss = model.build_model(training=training)
    assigned, (features, captions) = tiny_model.values(model), tiny_model.batch()
    expected = variants.teacher_forcing(assigned, features, captions, model.options, training)
    with tiny_model.session(model, assigned) as session:
        found_loss, found = session.run((loss, model.outputs),
                                        {model.features: features, model.captions: captions})
    np.testing.assert_allclose(found_loss, expected.loss, rtol=1e-9)
    np.testing.assert_allclose(found.log_probs, expected.words, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.alphas, expected.alphas, rtol=1e-9)
    np.testing.assert_allclose(found.betas, expected.betas, rtol=1e-9)
