"""Records of drawn pictures, and DATA DIRs made of them."""

from core.data import prepare
from core.datasets.records import Record
from tests.support.sample_photos import photo

CAPTIONS = ('A dog, runs!', 'the DOG runs fast')


def records_in(folder, n=40, captions=CAPTIONS):
    """`n` pictures in `folder`: two of three for training, then dev and test in turn."""
    folder.mkdir()
    return [Record(f'id{i}', photo(folder / f'{i:03d}.png', i), captions,
                   ['train', 'train', 'dev', 'test'][i % 4]) for i in range(n)]


def make(records, spec, out, lines=None, **options):
    """Make the DATA DIR `out` and return its manifest; what is said goes into `lines`."""
    say = (lambda line: None) if lines is None else lines.append
    return prepare.prepare(records, spec, out, 'test data', say=say,
                           **{'vocab_size': 100, 'max_length': 6, **options})
