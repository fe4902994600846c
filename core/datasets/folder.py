"""A folder of photos that nobody has described: one's own pictures, to be captioned."""

from core.common.aliases import PathLike
from core.common.errors import InputError
from core.datasets.published_files import directory
from core.datasets.records import Record

EXTENSIONS = ('.jpg', '.jpeg', '.png', '.bmp', '.webp')


def read(images: PathLike, captions: None = None, splits: None = None,
         instances: None = None) -> list[Record]:
    """Read every image file directly in `images`, by name: split 'test', no captions.

    Args:
        images: directory; files count by their extension (jpg, jpeg, png, bmp, webp in either
            case), hidden files do not.
        captions: must be None.
        splits: must be None.
        instances: must be None.

    Returns:
        list of Record; the image id is the file's name.
    """
    root = directory(images)
    names = sorted(path.name for path in root.iterdir() if path.suffix.lower() in EXTENSIONS
                   and not path.name.startswith('.') and path.is_file())
    if not names:
        raise InputError(f'{root}: holds no image file ({", ".join(EXTENSIONS)}); name the folder '
                         'of the photos')
    return [Record(name, root / name, (), 'test') for name in names]
