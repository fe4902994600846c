"""Sessions that run graphs as they are built: optimizing a tiny one takes longer than running."""

import functools

from core.runtime.backend import tf1


def as_built(config=None):
    """Return a session's ConfigProto (changed in place) without Grappler.

    That is TensorFlow's optimizer of graphs.
    """
    config = config or tf1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return config


def install(monkeypatch=None):
    """Make all later sessions of this process such.

    With a `monkeypatch` until the end of its test.
    """
    session = tf1.Session.__base__  # of which InteractiveSession is one too
    begin = session.__init__

    @functools.wraps(begin)
    def init(self, target='', graph=None, config=None):
        begin(self, target, graph, as_built(config))

    if monkeypatch:
        monkeypatch.setattr(session, '__init__', init)
    else:
        session.__init__ = init
