"""What a captioner offers for decoding: greedy search, sampling and beam search, a graph each.

    alphas, betas, captions = model.build_sampler(max_len=20)
    hypotheses = model.build_beam_search(beam_width=3, max_len=20)
    hypotheses = model.build_search(DecodingConfig(beam_width=3), n_best=2)

`Searches` is the part that `CaptionGenerator` and `ensemble.Ensemble` share.

Letters in shapes: N images, L locations, D features of a location, R rows (captions of one step), P
captions of an image.
"""

from typing import TYPE_CHECKING, Any

from core.common.aliases import Tensor
from core.decoding.beam_search import beam_search
from core.decoding.sampling import sample, uniforms
from core.decoding.search_loop import Decoding, Hypotheses, greedy
from core.decoding.word_rules import Rules
from core.runtime.backend import tf1
from core.runtime.random_streams import RandomStream

if TYPE_CHECKING:
    from core.config.decoding import DecodingConfig


class Searches:
    """Decoding graphs over `decoding`, which a subclass has.

    Attributes:
        word_to_idx, idx_to_word: dicts of the V words.
        end, never: numbers of <END> and of words never written.
        graph: tf.Graph. L: locations.
        inputs: what is fed. features: (N, L, D) float32 that it becomes.
        dropout_seed: (2,) int32. image_numbers: (N,) int32.
    """

    word_to_idx: dict[str, int]
    idx_to_word: dict[int, str]
    end: int
    never: list[int]
    L: int
    graph: Any  # tf.Graph
    inputs: Tensor
    features: Tensor
    dropout_seed: Tensor
    image_numbers: Tensor

    def decoding(self, max_len: int = 20, jit: bool | None = None) -> Decoding:
        """Return what every search starts from; each subclass has its own.

        Args:
            max_len: steps that can be taken. jit: XLA, or not; None: as the model was made.
        """
        raise NotImplementedError

    def build_sampler(self, max_len: int = 20, *, min_length: int = 0, no_repeat_ngram: int = 0,
                      sample: bool = False, temperature: float = 1.0, top_k: int = 0,
                      top_p: float = 1.0, jit: bool | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Build the graph that writes one caption an image, greedily unless `sample`.

        <NULL>, <START> and <UNK> are never written.

        Args:
            max_len: words at most, <END> included. min_length: words at least, <END> included.
            no_repeat_ngram: n, no n words in a row twice in a caption; 0: they may.
            sample: draw the words; a caption then follows `dropout_seed` and its image's number in
                `image_numbers`.
            temperature, top_k, top_p: see `sampling.sample`.
            jit: XLA compiles the attention's large products; None: as the model was made.

        Returns:
            (alphas (N, max_len, L), betas (N, max_len), captions (N, max_len) int32), as the TF1
            code. After a caption's end, <END> repeats and so do its last alpha and beta. Alpha is
            one at the location and zero elsewhere where `decode_context` takes one location.
        """
        hypotheses = self._write(max_len, Rules(self.end, self.never, min_length, no_repeat_ngram),
                                 sample, temperature, top_k, top_p, jit)
        return hypotheses.alphas[:, 0], hypotheses.betas[:, 0], hypotheses.captions[:, 0]

    def build_beam_search(self, beam_width: int = 3, max_len: int = 20, length_penalty: float = 0.0,
                          *, n_best: int | None = None, min_length: int = 0,
                          no_repeat_ngram: int = 0, groups: int = 1, diversity_penalty: float = 0.0,
                          jit: bool | None = None) -> Hypotheses:
        """Build the graph of beam search; <NULL>, <START> and <UNK> are never written.

        Args:
            beam_width: K. max_len: words at most, <END> included.
            length_penalty: A, captions are ranked by log-probability / length**A.
            n_best: P, captions an image; None: K. With fewer the search ends sooner.
            groups, diversity_penalty: of diverse beam search, see `beam_search.beam_search`.
            min_length, no_repeat_ngram, jit: see `build_sampler`.

        Returns:
            Hypotheses.
        """
        with tf1.name_scope('beam_search'):
            rules = Rules(self.end, self.never, min_length, no_repeat_ngram)
            return beam_search(self.decoding(max_len, jit), rules, max_len, beam_width,
                               length_penalty, n_best, groups, diversity_penalty)

    def build_search(self, options: 'DecodingConfig', n_best: int = 1,
                     jit: bool | None = None) -> Hypotheses:
        """Build the graph that a DecodingConfig asks for.

        Args:
            options: DecodingConfig. n_best: captions an image, at most its `beam_width`.
            jit: see `build_sampler`.

        Returns:
            Hypotheses, `n_best` an image; one where `beam_width` is 1.
        """
        if options.beam_width > 1:
            return self.build_beam_search(
                options.beam_width, options.max_len, options.length_penalty, n_best=n_best,
                min_length=options.min_length, no_repeat_ngram=options.no_repeat_ngram,
                groups=options.beam_groups, diversity_penalty=options.diversity_penalty, jit=jit)
        if n_best != 1:
            raise ValueError(f'{n_best} captions an image need a beam of that width')
        rules = Rules(self.end, self.never, options.min_length, options.no_repeat_ngram)
        return self._write(options.max_len, rules, options.sample, options.sample_temperature,
                           options.top_k, options.top_p, jit)

    def _write(self, max_len: int, rules: Rules, drawing: bool, temperature: float, top_k: int,
               top_p: float, jit: bool | None) -> Hypotheses:
        with tf1.name_scope('sampler'):
            if not drawing:
                return greedy(self.decoding(max_len, jit), rules, max_len)
            uniform = uniforms(self.dropout_seed, RandomStream.DECODED_WORDS, self.image_numbers,
                               max_len)                                             # (N, max_len)
            return sample(self.decoding(max_len, jit), rules, max_len, uniform, temperature, top_k,
                          top_p)
