"""Names of types that all modules use: Tensor, Session, PathLike ...

TensorFlow publishes no types that a type checker could read, and importing it takes seconds: what
belongs to it is `Any`, under a name of its own, and docstrings give shapes and dtypes.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

Tensor = Any  # tf.Tensor; also a nest of tensors, where a docstring says so
Variable = Any  # tf.Variable
Operation = Any  # tf.Operation
Session = Any  # tf.compat.v1.Session
DType = Any  # tf.DType
ConfigProto = Any  # tf.compat.v1.ConfigProto

Json = Any  # what json.loads returns: it says no more itself
Bar = Any  # tqdm.tqdm, which publishes no types either
PathLike = str | os.PathLike[str]
Say = Callable[..., object]  # prints a line
ImageId = int | str  # as a data set has them
Grid = tuple[int, int]  # (rows, columns)
Rectangle = tuple[float, float, float, float]  # (x0, y0, x1, y1) in fractions of the picture
Paths = PathLike | Sequence[PathLike] | None  # one file or several
# of each image: names of an object, and where it is
Boxes = Sequence[Sequence[tuple[tuple[str, ...], Rectangle]]]
