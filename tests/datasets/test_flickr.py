"""The readers of Flickr8k and Flickr30k."""

import collections

import pytest

from core.common.errors import InputError
from core.datasets import read

TOKENS = ('a.jpg#0\tA dog .\na.jpg#1\tOne dog\nb.jpg#0\tA cat\nc.jpg#0\tA cow\n'
          '2258277193_586949ec62.jpg.1#0\tSome people\n')


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'Flickr8k.token.txt').write_text(TOKENS)
    for split, names in (('train', 'b.jpg\na.jpg\n'), ('dev', 'c.jpg\n')):
        (tmp_path / f'Flickr_8k.{split}Images.txt').write_text(names)
    return tmp_path


def flickr8k(folder, **options):
    return read('flickr8k', folder, folder / 'Flickr8k.token.txt', **options)


def test_lists_beside_the_captions(folder):
    records = flickr8k(folder)
    assert [(r.image_id, r.split, r.captions) for r in records] == [
        ('b.jpg', 'train', ('A cat',)), ('a.jpg', 'train', ('A dog .', 'One dog')),
        ('c.jpg', 'dev', ('A cow',))]
    assert records[0].path == folder / 'b.jpg'
    assert records[0].boxes is None
    (folder / 'Flickr_8k.trainImages.txt').unlink()
    with pytest.raises(InputError, match='Flickr_8k.trainImages.txt'):
        flickr8k(folder)


def test_named_lists(folder):
    (folder / 'held.txt').write_text('c\n\n  a.jpg  \n')
    records = flickr8k(folder, splits={'test': folder / 'held.txt'})
    assert [(r.image_id, r.split) for r in records] == [('c.jpg', 'test'), ('a.jpg', 'test')]
    for bad in ({'val': folder / 'held.txt'}, {}):
        with pytest.raises(InputError, match='train, dev, test'):
            flickr8k(folder, splits=bad)


def test_windows_line_ends_and_byte_order_marks(folder):
    expected = flickr8k(folder)
    for path in folder.glob('*.txt'):
        text = path.read_bytes().replace(b'\n', b'\r\n')
        path.write_bytes(b'\xef\xbb\xbf' + text + b'\r\n  \r\n')
    assert flickr8k(folder) == expected


def test_characters_that_end_lines_elsewhere(folder):
    odd = 'Two\tdogs | run\u2028fast\rand\x0bfar\x0c\x85\x1eaway #1\t'
    (folder / 'Flickr8k.token.txt').write_bytes(
        f'a.jpg#0\t{odd}\r\nb.jpg#0\tA cat\nc.jpg#0\tA cow'.encode())
    records = flickr8k(folder)
    assert records[1].captions == (odd,)
    assert [r.image_id for r in records] == ['b.jpg', 'a.jpg', 'c.jpg']


@pytest.mark.parametrize(('names', 'said'), [
    ('b.jpg\nc.jpg\n', r"line 1: image 'c\.jpg' is in two splits, train and dev"),
    ('a.jpg\n\na\n', r"line 3: image 'a\.jpg' is listed twice"),
    ('a.jpg\nzebra.jpg\n', r"trainImages\.txt, line 2: image 'zebra\.jpg' has no captions"),
    ('\n', 'no image'),
])
def test_damaged_lists(folder, names, said):
    (folder / 'Flickr_8k.trainImages.txt').write_text(names)
    if not names.strip():
        (folder / 'Flickr_8k.devImages.txt').unlink()
    with pytest.raises(InputError, match=said):
        flickr8k(folder)


@pytest.mark.parametrize(('text', 'said'), [
    ('a.jpg#0\tA dog\na.jpg#1 no tab\n', 'line 2'),
    ('a.jpg\tA dog\n', 'line 1'),
    ('a.jpg#x\tA dog\n', 'line 1'),
    ('#0\tA dog\n', 'line 1'),
    ('a.jpg#0\tA dog\n\na.jpg#0\tA cat\n', r"line 3: caption 0 of image 'a\.jpg' is there twice"),
    ('<html>', 'line 1'),
])
def test_damaged_captions(folder, text, said):
    (folder / 'Flickr8k.token.txt').write_text(text)
    with pytest.raises(InputError, match=said) as caught:
        flickr8k(folder)
    assert 'Flickr8k.token.txt' in str(caught.value)


def test_not_text(folder):
    (folder / 'Flickr8k.token.txt').write_bytes(b'a.jpg#0\tA dog\nb.jpg#0\t\xff\xfe\n')
    with pytest.raises(InputError, match=r'Flickr8k\.token\.txt, line 2: is not UTF-8'):
        flickr8k(folder)
    (folder / 'Flickr8k.token.txt').unlink()
    with pytest.raises(InputError, match=r'Flickr8k\.token\.txt: cannot be read'):
        flickr8k(folder)
    with pytest.raises(InputError, match='exactly one'):
        read('flickr8k', folder, [])
    with pytest.raises(InputError, match='cannot be read.*expected lines'):
        read('flickr8k', folder, folder)


CSV = """image_name| comment_number| comment
1.jpg| 0| Two young guys | with shaggy hair .
1.jpg| 1| 3 men , "outside"
2199200615.jpg| 3| A dog runs
2199200615.jpg| 4   A dog runs across the grass .
"""


@pytest.mark.parametrize('lists', ['1.jpg\n2199200615.jpg\n', '1\n2199200615\n'])
def test_flickr30k_csv(tmp_path, lists):
    (tmp_path / 'results.csv').write_text(CSV)
    (tmp_path / 'train.txt').write_text(lists)
    records = read('flickr30k', tmp_path, tmp_path / 'results.csv',
                   splits={'train': tmp_path / 'train.txt'})
    assert [(r.image_id, r.captions) for r in records] == [
        ('1.jpg', ('Two young guys | with shaggy hair .', '3 men , "outside"')),
        ('2199200615.jpg', ('A dog runs', 'A dog runs across the grass .'))]
    (tmp_path / 'results.csv').write_text(CSV + '3.jpg| x| y\n')
    with pytest.raises(InputError, match=r'results\.csv, line 6'):
        read('flickr30k', tmp_path, tmp_path / 'results.csv',
             splits={'train': tmp_path / 'train.txt'})


def test_flickr30k_token_file(tmp_path):
    (tmp_path / 'results_20130124.token').write_text('1.jpg#0\tA man\n2.jpg#0\tA woman\n',
                                                     encoding='utf8')
    (tmp_path / 'val.txt').write_text('2\n')
    records = read('flickr30k', tmp_path, tmp_path / 'results_20130124.token',
                   splits={'dev': tmp_path / 'val.txt'})
    assert [(r.image_id, r.split, r.captions) for r in records] == [('2.jpg', 'dev', ('A woman',))]
    with pytest.raises(InputError, match='name them as splits'):
        read('flickr30k', tmp_path, tmp_path / 'results_20130124.token')


def test_instances_do_not_apply(folder):
    with pytest.raises(InputError, match='takes no instances'):
        flickr8k(folder, instances='x.json')


def test_real_flickr8k(shared):
    folder = shared / 'data' / 'flickr8k'
    records = read('flickr8k', folder / 'images', folder / 'Flickr8k.token.txt')
    assert collections.Counter(r.split for r in records) == {'train': 6000, 'dev': 1000}
    assert all(len(r.captions) == 5 for r in records)
    assert records[0].image_id == '2513260012_03d33305cf.jpg'
    assert records[0].captions[1] == 'Black dog chasing brown dog through snow'
    assert all(r.path.is_file() for r in records[::100])
