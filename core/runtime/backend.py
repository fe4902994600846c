"""TensorFlow, imported without its start-up lines: `from core.runtime.backend import tf, tf1`.

Importing TensorFlow writes notices of its C++ core to file descriptor 2. They say nothing about the
user's run and would break the promise that importing `core` prints nothing, so descriptor 2 is
pointed to a temporary file during the import, and given back with its contents only if the import
fails.
"""

import os
import sys
import tempfile
import types

from core.common.aliases import DType, Tensor


def _import_tensorflow() -> types.ModuleType:
    """Import TensorFlow with file descriptor 2 aside; return the module."""
    if 'tensorflow' in sys.modules:
        import tensorflow

        return tensorflow
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as chatter:
        os.dup2(chatter.fileno(), 2)
        try:
            import tensorflow
        except BaseException:
            chatter.seek(0)
            os.write(saved, chatter.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)
    return tensorflow


tf = _import_tensorflow()
tf1 = tf.compat.v1


def cast(x: Tensor, dtype: DType) -> Tensor:
    """Cast x to another floating type; return x itself where it has that type."""
    return x if x.dtype.base_dtype == dtype else tf.cast(x, dtype)


def matmul(x: Tensor, w: Tensor, **options: bool) -> Tensor:
    """Return the product x w, computed in the type of the weights w and cast to the type of x.

    Mixed precision is made of this.

    Args:
        x, w: as of `tf.matmul`, of floating types.
        options: of `tf.matmul`, such as transpose_b.
    """
    return cast(tf.matmul(cast(x, w.dtype), w, **options), x.dtype)


