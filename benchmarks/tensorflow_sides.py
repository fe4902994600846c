"""The sides of the comparisons that run in TensorFlow: this project and the textbook graph.

Each class is made inside a worker of benchmarks.measure; its methods return dicts with 'seconds'
and 'items'.
"""

import os
import pathlib
import tempfile
import time

import numpy as np

from benchmarks import op_profile
from benchmarks.cases import FLICKR8K, Album, Corpus, full_captions, relu_features
from benchmarks.measure import resident
from benchmarks.textbook import Textbook, until_end
from core.config.training import TrainingConfig
from core.data.batches import Batches, prefetch
from core.data.feature_file import FeatureFile
from core.data.vocabulary import END
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1
from core.training.optimization import Optimization

NEVER = -30.0  # the bias of <END> under which no caption ends


def config(threads):
    """Return a session's ConfigProto: both thread pools have `threads` threads."""
    return tf1.ConfigProto(intra_op_parallelism_threads=threads,
                           inter_op_parallelism_threads=threads)


def assign(session, variables, values):
    """Set variables (dict of name -> variable) to values (dict of name -> array) in one run."""
    session.run([variables[name].initializer for name in values],
                {variables[name].initializer.inputs[1]: value for name, value in values.items()})


class Training:
    """Training steps on fixed batches; subclasses build the graph.

    Args:
        sizes: Sizes. threads: int. lengths: see cases.Corpus.
    """

    def __init__(self, sizes, threads=2, lengths=FLICKR8K):
        self.sizes, self.corpus = sizes, Corpus(sizes, lengths)
        begun = time.perf_counter()
        with tf.Graph().as_default() as self.graph:
            tf1.set_random_seed(1)
            self.fetches, self.features, self.captions = self._build(sizes)
            initialize = tf1.global_variables_initializer()
        self.build_seconds = time.perf_counter() - begun
        self.session = tf1.Session(graph=self.graph, config=config(threads))
        self.session.run(initialize)
        # Two batches of images, in the type that the graph takes: input has a benchmark of its own.
        self._images = [relu_features(sizes, seed).astype(self.features.dtype.as_numpy_dtype)
                        for seed in (1, 2)]
        self._step = 0
        begun = time.perf_counter()
        self._run(full_captions(sizes))
        self.first_seconds = time.perf_counter() - begun

    def _feeds(self, step):
        """Return what a step is fed with besides the batch."""
        return {}

    def _run(self, captions, **options):
        self._step += 1
        return self.session.run(self.fetches,
                                {self.features: self._images[self._step % 2],
                                 self.captions: captions, **self._feeds(self._step)}, **options)

    def train(self, number, steps, order='sorted'):
        """Run `steps` steps on batches that stand for an epoch; `number` is the round."""
        batches = self.corpus.batches(steps, order, number)
        begun = time.perf_counter()
        for captions in batches:
            loss = self._run(captions)[1]
        seconds = time.perf_counter() - begun
        assert np.isfinite(loss), loss
        return {'seconds': seconds, 'items': steps * self.sizes.N}

    def longest(self, steps):
        """Return the median time of steps on captions of T words, in 'seconds'."""
        captions, times = full_captions(self.sizes), []
        for _ in range(steps):
            begun = time.perf_counter()
            self._run(captions)
            times.append(time.perf_counter() - begun)
        return {'seconds': float(np.median(times)), 'items': self.sizes.N}

    def memory(self):
        """Return bytes: 'idle' after the import, 'peak' since the process began."""
        return {'idle': self.idle_bytes, 'peak': resident()['VmHWM']}

    def start(self):
        """Return seconds of 'build' and of the 'first' step, and the graph's 'nodes'.

        The first step optimises the graph.
        """
        return {'build': self.build_seconds, 'first': self.first_seconds,
                'nodes': len(self.graph.as_graph_def().node)}

    def profile(self, number=0):
        """Trace one step on a batch of middle length: op_profile.shares."""
        captions = sorted(self.corpus.batches(3, seed=number), key=np.count_nonzero)[1]
        self._run(captions)
        metadata = tf1.RunMetadata()
        begun = time.perf_counter()
        self._run(captions, options=tf1.RunOptions(trace_level=tf1.RunOptions.FULL_TRACE),
                  run_metadata=metadata)
        return op_profile.shares(metadata.step_stats) | {'seconds': time.perf_counter() - begun}

    def close(self):
        """Give the memory back."""
        self.session.close()
        self.session = self.graph = None


class OursTraining(Training):
    """This project: its default options, gradients not clipped as nobody else clips."""

    def _build(self, sizes):
        # Fed float16, as core.runs.run_dir builds it.
        stored = tf1.placeholder(tf.float16, [None, sizes.L, sizes.D])
        model = CaptionGenerator(sizes.word_to_idx(), **sizes.model(), alpha_c=1.0,
                                 features=tf.cast(stored, tf.float32), inputs=stored)
        loss = model.build_model()
        self._optimization = Optimization(model, loss, TrainingConfig(clip_norm=0.0),
                                          steps_per_epoch=1000)
        self.model = model
        return (self._optimization.train_op, model.nll), model.inputs, model.captions

    def _feeds(self, step):
        return {self.model.dropout_seed: (1, step), **self._optimization.feeds(step)}


class TextbookTraining(Training):
    """benchmarks.textbook."""

    def _build(self, sizes):
        model = Textbook(sizes.V, **sizes.model())
        loss = model.build_model()
        return (model.minimize(loss), loss), model.features, model.captions


class CommonState(OursTraining):
    """Weights with which captions end as real ones do.

    They come from a short training on images that tell their sentence. The variables do not depend
    on the number of locations; few of them make it fast.
    """

    def learn(self, steps, path, lengths=FLICKR8K):
        """Train and write the variables to `path` (.npz).

        Returns the loss per caption of the last step.
        """
        album = Album(self.sizes, lengths)
        for step in range(steps):
            features, captions = album.batch(step)
            self._images = [features] * 2
            nll = self._run(captions)[1]
        values = self.session.run({variable.op.name: variable for variable in self.model.variables})
        np.savez(path, **values)
        return {'nll': float(nll)}


class Decoding:
    """Captions of an Album's images; subclasses build the graph.

    Args:
        sizes: Sizes. threads: int.
        weights: path of what CommonState wrote, or None: as initialised.
        never_end: <END> gets a bias that keeps every caption from ending.
        beam_width: int; 0: greedy. max_len: int. lengths: see cases.Album.
    """

    def __init__(self, sizes, threads=2, weights=None, never_end=False, beam_width=0, max_len=20,
                 lengths=FLICKR8K):
        self.album = Album(sizes, lengths)
        begun = time.perf_counter()
        with tf.Graph().as_default() as self.graph:
            tf1.set_random_seed(1)
            self.words, self.features, variables = self._build(sizes, beam_width, max_len)
            initialize = tf1.global_variables_initializer()
        self.build_seconds = time.perf_counter() - begun
        self.session = tf1.Session(graph=self.graph, config=config(threads))
        self.session.run(initialize)
        if weights:
            with np.load(weights) as values:
                assign(self.session, variables, dict(values))
        if never_end:
            bias = self.session.run(variables['logits/b_out'])
            bias[END] = NEVER
            assign(self.session, variables, {'logits/b_out': bias})
        begun = time.perf_counter()
        self.decode(0)
        self.first_seconds = time.perf_counter() - begun

    def decode(self, number):
        """Return captions of batch `number`.

        'seconds', 'items' (images), 'captions' (lists of words up to <END>).
        """
        features = self.album.batch(number)[0].astype(self.features.dtype.as_numpy_dtype)
        begun = time.perf_counter()
        words = self.session.run(self.words, {self.features: features})
        seconds = time.perf_counter() - begun
        return {'seconds': seconds, 'items': len(words),
                'captions': [until_end(caption) for caption in words]}

    def close(self):
        """Give the memory back."""
        self.session.close()
        self.session = self.graph = None


class OursDecoding(Decoding):
    """`build_sampler`, or `build_beam_search` where a width is given; the best sentence counts."""

    def _build(self, sizes, beam_width, max_len):
        model = CaptionGenerator(sizes.word_to_idx(), **sizes.model())
        if beam_width:
            words = model.build_beam_search(beam_width=beam_width, max_len=max_len).captions[:, 0]
        else:
            words = model.build_sampler(max_len)[2]
        return words, model.features, {variable.op.name: variable for variable in model.variables}


class TextbookDecoding(Decoding):
    """The unrolled sampler of benchmarks.textbook."""

    def _build(self, sizes, beam_width, max_len):
        model = Textbook(sizes.V, **sizes.model())
        return model.build_sampler(max_len)[2], model.features, model.variables


class InputWaiting(OursTraining):
    """Training from a features file on the disk, as the Solver reads it.

    How long does a step wait for its batch?
    """

    def waiting(self, steps, n_images):
        """Return 'seconds' in all and 'waiting' of them for batches.

        They are those of `steps` steps after the first.
        """
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / 'features.h5'
            FeatureFile.create(path, (n_images, self.sizes.L, self.sizes.D))
            features = FeatureFile(path)
            for row in range(0, n_images, self.sizes.N):
                rows = range(row, min(row + self.sizes.N, n_images))
                features.write(rows, relu_features(self.sizes, row, len(rows)))
            descriptor = os.open(path, os.O_RDONLY)
            # read from the disk, not from memory
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
            data = self.corpus.data(FeatureFile(path))
            batches = prefetch(Batches(data, self.sizes.N, seed=1).epoch(0))
            try:
                return self._wait(batches, steps)
            finally:
                batches.close()

    def _wait(self, batches, steps):
        waiting, begun = 0.0, None
        for step in range(steps + 1):
            asked = time.perf_counter()
            batch = next(batches)
            if step == 1:
                begun = asked
            if step:
                waiting += time.perf_counter() - asked
            self.session.run(self.fetches, {self.model.inputs: batch.features,
                                            self.captions: batch.captions, **self._feeds(step)})
        return {'seconds': time.perf_counter() - begun, 'waiting': waiting,
                'items': steps * self.sizes.N}


class Growth:
    """Times of one step or batch at changing sizes; one graph at a time.

    Args:
        side: 'ours' or 'textbook'. threads: int.
    """

    def __init__(self, side, threads=2):
        self.training = {'ours': OursTraining, 'textbook': TextbookTraining}[side]
        self.threads = threads

    def step(self, sizes, steps):
        """Return the seconds of a training step on captions of T words."""
        self.training.idle_bytes = 0
        training = self.training(sizes, self.threads)
        try:
            return training.longest(steps)['seconds']
        finally:
            training.close()

    def beam(self, sizes, beam_width, max_len, steps):
        """Return the seconds of a step of beam search in which no sentence ends."""
        decoding = OursDecoding(sizes, self.threads, never_end=True, beam_width=beam_width,
                                max_len=max_len)
        try:
            return float(np.median([decoding.decode(k)['seconds'] for k in range(steps)])) / max_len
        finally:
            decoding.close()
