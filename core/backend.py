"""TensorFlow, imported without its start-up lines: `from core.backend import tf, tf1`.

Importing TensorFlow writes notices of its C++ core to file descriptor 2. They say nothing about the user's run
and would break the promise that importing `core` prints nothing, so descriptor 2 is pointed to a temporary file
during the import, and given back with its contents only if the import fails.
"""

import os
import sys
import tempfile


def _import_tensorflow():
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
