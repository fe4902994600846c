"""The command lines: one module for each of prepro.py, train.py, evaluate.py and caption.py.

A module parses its arguments and calls the other rooms; what it does is done there. `python -m
core` has its own in `core/__main__.py`.
"""
