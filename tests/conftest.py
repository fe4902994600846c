"""Shared by all tests: where the real material lies, and a graph of its own for each test that wants one."""

import os
import pathlib

import pytest

SHARED = pathlib.Path(os.environ.get('SAT_SHARED', pathlib.Path(__file__).parents[2] / 'shared'))


@pytest.fixture
def shared():
    """The folder of real photos and weights; tests that need it skip where it is missing."""
    if not (SHARED / 'data').is_dir():
        pytest.skip(f'needs the real photos and weights in {SHARED} (set SAT_SHARED to name another folder)')
    return SHARED


@pytest.fixture
def graph():
    """A fresh graph, made the default one during the test."""
    from core.runtime.backend import tf

    with tf.Graph().as_default() as fresh:
        yield fresh
