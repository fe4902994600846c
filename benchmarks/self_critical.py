"""Which share of a step of self-critical training its rewards take.

    python -m benchmarks.self_critical data/flickr8k_vgg16 --steps 30

The rewards are those of the data's own references, computed for the captions that a model with new
weights draws: of all lengths up to the longest, so that none is cheaper later. The data's features
and sizes are those of the recipe flickr8k_scst unless --config names another.
"""

import argparse
import dataclasses
import pathlib
import statistics
import tempfile
import time

from core.common import terminal
from core.config.config import Config
from core.data.batches import Batches
from core.data.data_dir import DataDir
from core.metrics.sentence_rewards import training_rewards
from core.model.caption_generator import CaptionGenerator
from core.runtime.backend import tf, tf1
from core.training.optimization import Optimization

RECIPE = pathlib.Path(__file__).parent.parent / 'data' / 'recipes' / 'flickr8k_scst.json'


class Timed:
    """A function of captions and images that notes the seconds it takes."""

    def __init__(self, rewards):
        self.rewards, self.seconds = rewards, []

    def __call__(self, captions, images):
        """Return the rewards (R,)."""
        begun = time.perf_counter()
        result = self.rewards(captions, images)
        self.seconds.append(time.perf_counter() - begun)
        return result


def measure(data, config, n_steps):
    """Return (seconds of each step, seconds of its rewards), without the first five steps."""
    split = data.split('train')
    options, model_options = config.training, dataclasses.asdict(config.model)
    batches = Batches(split, options.batch_size, 1, batch_by='image',
                      captions_per_image=options.captions_per_image)
    with tf.Graph().as_default(), tempfile.TemporaryDirectory() as directory:
        model = CaptionGenerator(data.vocabulary.word_to_idx, tuple(split.features.shape[1:]),
                                 n_time_step=data.max_length + 1, **model_options)
        rewards = Timed(training_rewards(split.references, model.word_to_idx, config.model,
                                         directory, data.tokens))
        loss = model.build_model(rewards=rewards)
        optimization = Optimization(model, loss, options, len(batches))
        initialize = tf1.global_variables_initializer()
        with tf1.Session() as session:
            session.run(initialize)
            steps = []
            for step, batch in zip(range(n_steps + 5), batches.epoch(0), strict=False):
                feeds = {model.inputs: batch.features, model.captions: batch.captions,
                         model.image_numbers: batch.images, model.dropout_seed: (1, step),
                         **optimization.feeds(step, 1.0)}
                begun = time.perf_counter()
                session.run(optimization.train_op, feeds)
                steps.append(time.perf_counter() - begun)
    return steps[5:], rewards.seconds[5:]


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', metavar='DATA', help='data directory of prepro.py')
    parser.add_argument('--config', metavar='FILE', default=RECIPE)
    parser.add_argument('--steps', type=int, metavar='N', default=30)
    args = parser.parse_args()
    steps, rewards = measure(DataDir(args.data), Config.load(args.config), args.steps)
    shares = [reward / step for reward, step in zip(rewards, steps, strict=True)]
    print(f'{len(steps)} steps: median {statistics.median(steps):.3f} s, rewards '
          f'{1000 * statistics.median(rewards):.1f} ms, share {statistics.median(shares):.3f} '
          f'({min(shares):.3f} to {max(shares):.3f})')


if __name__ == '__main__':
    terminal.run(main)
