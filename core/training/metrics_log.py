"""The record of a training run: metrics.jsonl for programs, TensorBoard for people."""

import json
import pathlib
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from core.common.aliases import PathLike
from core.common.files import replacing
from core.runtime.backend import tf, tf1
from core.viewer import attention_pictures

if TYPE_CHECKING:
    from core.data.split import Split
    from core.decoding.captions import Caption


class Journal:
    """Writes RUN/metrics.jsonl, an object a line, and TensorBoard events.

    Args:
        directory: of metrics.jsonl.
        log_path: directory of the events, or None.
        step: where training goes on; entries of later steps, left by a run that was killed, are
            dropped.
    """

    def __init__(self, directory: PathLike, log_path: PathLike | None, step: int) -> None:
        self.path = pathlib.Path(directory) / 'metrics.jsonl'
        self.path.parent.mkdir(parents=True, exist_ok=True)
        entries = []
        if self.path.exists():
            for line in self.path.read_text(encoding='utf8').split('\n'):
                try:
                    entry = json.loads(line)
                except ValueError:  # the last line of a killed run, or an empty one
                    continue
                if entry['step'] <= step:
                    entries.append(line + '\n')
        with replacing(self.path) as file:
            file.writelines(entries)
        self._writer = None
        if log_path is not None:
            with tf.Graph().as_default():
                self._writer = tf1.summary.FileWriter(str(log_path))
            # Tells TensorBoard to forget events of later steps as well.
            self._writer.add_session_log(tf1.SessionLog(status=tf1.SessionLog.START), step + 1)

    def scalars(self, kind: str, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Record numbers at a step: `kind` is 'training' or 'validation'."""
        entry = {'kind': kind, 'step': step, 'epoch': epoch, 'time': round(time.time(), 3),
                 **values}
        with open(self.path, 'a', encoding='utf8') as file:
            file.write(json.dumps(entry) + '\n')
        if self._writer:
            summary = tf1.Summary(
                value=[tf1.Summary.Value(tag=f'{kind}/{name}', simple_value=float(value))
                       for name, value in values.items()])
            self._writer.add_summary(summary, step)
            self._writer.flush()

    def captions(self, step: int, data: 'Split',
                 captioned: 'Iterable[tuple[int, Caption]]') -> None:
        """Show captions in TensorBoard: the sentence, and the attention on the photo.

        Args:
            step: int. data: Split. captioned: pairs of (image number, Caption).
        """
        if not self._writer:
            return
        values = []
        for place, (image, caption) in enumerate(captioned):
            text = f'{caption.text}\n\nreferences: ' + ' | '.join(data.references[image])
            metadata = tf1.SummaryMetadata(
                plugin_data=tf1.SummaryMetadata.PluginData(plugin_name='text'))
            values.append(
                tf1.Summary.Value(tag=f'captions/{place}', metadata=metadata,
                                  tensor=tf1.make_tensor_proto(np.array([text.encode()], object))))
            picture = attention_pictures.safe_picture(data, image, caption)
            if picture is not None:
                height, width = picture.shape[:2]
                values.append(tf1.Summary.Value(
                    tag=f'attention/{place}',
                    image=tf1.Summary.Image(height=height, width=width, colorspace=3,
                                            encoded_image_string=attention_pictures.png(picture))))
        self._writer.add_summary(tf1.Summary(value=values), step)
        self._writer.flush()

    def close(self) -> None:
        """Close the events file."""
        if self._writer:
            self._writer.close()
