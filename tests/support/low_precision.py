"""Whether this TensorFlow multiplies bfloat16 matrices.

It may not where oneDNN is told of a smaller processor than there is.
"""

import functools
import os

import pytest

from tests.support import scripts

# TensorFlow asks the processor, oneDNN the variable ONEDNN_MAX_CPU_ISA: where they disagree, the
# first product of two bfloat16 matrices can end the process. So a process of its own tries it.
PRODUCT = '''
from core.runtime.backend import tf, tf1
with tf.Graph().as_default(), tf1.Session() as session:
    x = tf1.placeholder_with_default(tf.ones((64, 32), tf.bfloat16), (64, 32))
    session.run(tf.matmul(x, tf.ones((32, 16), tf.bfloat16)))
'''


def skip_where_it_crashes(dtype):
    """Skip the test where products of this type end the process.

    `dtype` is a tf.DType, its name, or None for float32.
    """
    isa = os.environ.get('ONEDNN_MAX_CPU_ISA')
    if getattr(dtype, 'name', dtype) == 'bfloat16' and isa is not None and not _multiplied():
        pytest.skip('TensorFlow crashes at a product of bfloat16 matrices with '
                    f'ONEDNN_MAX_CPU_ISA={isa} on this processor')


@functools.cache
def _multiplied():
    return scripts.python(PRODUCT).returncode == 0
