"""SPICE (Anderson et al., 2016, arXiv 1607.08822), where Stanford's jars are present.

pycocoevalcap brings SPICE itself, but not the parser that it needs, two jars of Stanford CoreNLP.
Its own wrapper fetches them without asking and writes into its package; here they are looked for,
and Java writes into a temporary folder.
"""

import json
import math
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from importlib import resources

from core.common.aliases import ImageId, PathLike
from core.common.errors import InputError
from core.metrics import java_tools

PARSER = ('stanford-corenlp-3.6.0.jar', 'stanford-corenlp-3.6.0-models.jar')
ADDRESS = 'http://nlp.stanford.edu/software/stanford-corenlp-full-2015-12-09.zip'
MEMORY = '8G'  # what pycocoevalcap gives it


def find(folder: PathLike | None = None) -> pathlib.Path:
    """Return the path of SPICE's jar, whose parser lies in `lib` beside it.

    Args:
        folder: where spice-1.0.jar lies; None: pycocoevalcap's own.

    Raises:
        InputError: a jar is missing; says which, where to get it and where to put it.
    """
    folder = pathlib.Path(folder or str(resources.files('pycocoevalcap') / 'spice'))
    missing = [path for path in (folder / 'spice-1.0.jar',
                                 *(folder / 'lib' / name for name in PARSER)) if not path.is_file()]
    if missing:
        raise InputError(f'SPICE needs {", ".join(path.name for path in missing)}, which are not '
                         f'part of this project: take them out of {ADDRESS} and put them into '
                         f'{missing[0].parent}')
    return folder / 'spice-1.0.jar'


def compute_score(references: Mapping[ImageId, Sequence[str]],
                  hypotheses: Mapping[ImageId, Sequence[str]],
                  folder: PathLike | None = None) -> tuple[float, list[float]]:
    """Compute SPICE as pycocoevalcap does.

    Args:
        references: dict from image id to a list of tokenized captions.
        hypotheses: the same, of one caption each.
        folder: as of `find`.

    Returns:
        (float, list of floats in the order of `references`): the mean, and the F-score of each
        image.

    Raises:
        InputError: a jar is missing, or Java failed, with its last words.
    """
    jar = find(folder)
    with tempfile.TemporaryDirectory() as place:
        question = pathlib.Path(place) / 'captions.json'
        answer = pathlib.Path(place) / 'scores.json'
        question.write_text(json.dumps([{'image_id': number, 'test': hypotheses[image][0],
                                         'refs': references[image]}
                                        for number, image in enumerate(references)]), 'utf8')
        command = [java_tools.find_java(), f'-Xmx{MEMORY}', '-jar', str(jar), str(question), '-out',
                   str(answer), '-silent']
        process = subprocess.run(command, cwd=place, capture_output=True, text=True,
                                 errors='replace')
        if process.returncode or not answer.is_file():
            lines = (process.stderr or process.stdout).strip().splitlines() or ['nothing']
            raise InputError(
                f'SPICE failed; it said: {lines[0][:300]} (it was written for Java 8 and may take '
                f'{MEMORY} of memory; leave --spice out to go on without)')
        rows = json.loads(answer.read_text(encoding='utf8'))
    f_scores = {row['image_id']: float(row['scores']['All']['f']) for row in rows}
    scores = [0.0 if math.isnan(f_scores[number]) else f_scores[number]
              for number in range(len(references))]
    return sum(scores) / len(scores), scores
