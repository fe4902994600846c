"""Creating variables: names, shapes and how they begin, in one place.

    variables = Variables(tf.float32, 'tf1')
    gate = variables.create('selector', w=([H, 1], 'matrix'), b=([1], 'zeros'))
    gate['w'], gate['b']
"""

from collections.abc import Sequence

from core.common.aliases import DType, Tensor, Variable
from core.runtime.backend import tf, tf1


class Variables:
    """The creation of a model's variables, and the list of them.

    Args:
        dtype: of the variables.
        initializer: 'tf1' (Glorot uniform, word vectors uniform in [-1, 1]), 'authors' (normal of
            deviation 0.01, square matrices and the recurrent part of the LSTM orthogonal) or
            'keras' (Glorot uniform, word vectors uniform in [-0.05, 0.05]). Biases begin at zero.

    Attributes:
        created: list of all variables, in the order of their creation.
    """

    def __init__(self, dtype: DType, initializer: str = 'tf1') -> None:
        self.dtype = dtype
        self.created: list[Variable] = []
        glorot = tf1.glorot_uniform_initializer()
        normal = tf1.random_normal_initializer(stddev=0.01)
        self._initializers = {'zeros': tf1.zeros_initializer(), 'ones': tf1.ones_initializer()} | {
            'tf1': {'matrix': glorot, 'projection': glorot, 'recurrent': glorot,
                    'words': tf1.random_uniform_initializer(-1.0, 1.0)},
            'keras': {'matrix': glorot, 'projection': glorot, 'recurrent': glorot,
                      'words': tf1.random_uniform_initializer(-0.05, 0.05)},
            'authors': {'matrix': _normal_or_orthogonal, 'projection': normal,
                        'recurrent': _stacked, 'words': normal},
        }[initializer]

    def create(self, scope: str, /, **specs: tuple[Sequence[int], str]) -> dict[str, Variable]:
        """Create the variables of one scope, or return those that it has.

        Args:
            scope: the first part of their names.
            specs: name -> (shape, kind), kind one of 'matrix', 'projection' (of the features, which
                the authors do not begin orthogonal), 'recurrent' (the kernel of a cell, whose last
                H rows are for its state), 'words', 'zeros', 'ones'. Names that begin with moving_
                are not trained.

        Returns:
            dict of name -> variable.
        """
        with tf1.variable_scope(scope, reuse=tf1.AUTO_REUSE, use_resource=True):
            named = {name: tf1.get_variable(name, shape, self.dtype,
                                            initializer=self._initializers[kind],
                                            trainable=not name.startswith('moving_'))
                     for name, (shape, kind) in specs.items()}
        self.created.extend(named.values())
        return named


# The two below are called as `tf1.get_variable` calls an initializer: with `partition_info` too.
def _normal_or_orthogonal(shape: Sequence[int], dtype: DType = None,
                          partition_info: object = None) -> Tensor:
    """Draw a matrix as the authors do: orthogonal where it is square, else normal."""
    if len(shape) == 2 and shape[0] == shape[1]:
        return tf1.orthogonal_initializer()(shape, dtype)
    return tf1.random_normal_initializer(stddev=0.01)(shape, dtype)


def _stacked(shape: Sequence[int], dtype: DType = None, partition_info: object = None) -> Tensor:
    """Draw the kernel of a cell: normal rows for the input, orthogonal ones for the state.

    Its columns are 4 (LSTM) or 3 (GRU) gates of H units each, its last H rows are for the state.
    """
    rows, columns = (int(size) for size in shape)
    gates = 4 if columns % 4 == 0 and columns // 4 < rows else 3
    H = columns // gates
    inputs = tf1.random_normal_initializer(stddev=0.01)([rows - H, columns], dtype)
    state = tf.concat([tf1.orthogonal_initializer()([H, H], dtype) for _ in range(gates)], axis=1)
    return tf.concat([inputs, state], axis=0)
