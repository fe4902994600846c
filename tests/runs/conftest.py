"""The archive that the tests of packed runs share."""

import pytest

from core.__main__ import main


@pytest.fixture(scope='session')
def packed(sample_run, tmp_path_factory):
    """Return the archive of `sample_run`."""
    out = tmp_path_factory.mktemp('packed') / 'scenes.zip'
    main(['pack', str(sample_run), '--out', str(out)])
    return out
