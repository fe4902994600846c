"""Other people's trained models, brought into a RUN DIR: `python -m core import`.

The way in is `make_run`. Each foreign format has a module that reads it into an `Imported`:
`tf1_tutorial` (which also writes), `tf2_tutorial`, `authors_theano`. A new one is such a module, a
row of `make_run.KINDS` and a case of `make_run.detect`.
"""
