"""Show, Attend and Tell in TensorFlow graph mode. Importing this package has no side effects."""

__version__ = '0.1.0'
