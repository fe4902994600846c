"""What a captioner offers for decoding: greedy search, sampling and beam search, each a graph of
its own.

    alphas, betas, captions = model.build_sampler(max_len=20)
    beams = model.build_beam_search(beam_width=3, max_len=20)
    found = model.build_search(DecodingConfig(beam_width=3), n_best=2)

`Searches` is the part that `CaptionGenerator` and `ensemble.Ensemble` share.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

from core.common.aliases import Tensor
from core.decoding.beam_search import beam_search
from core.decoding.sampling import sample, uniforms
from core.decoding.search_loop import Decoded, Decoding, greedy
from core.decoding.word_rules import Rules
from core.runtime.backend import tf, tf1

if TYPE_CHECKING:
    from core.config.decoding import DecodingConfig

WORD_DRAWS, LOCATION_DRAWS = 104, 103  # uses of a seed


class Sampled(NamedTuple):
    """What `build_sampler` returns.

    Attributes:
        alphas: (N, max_len, L) float, attention weights; one at the location and zero elsewhere
            where `decode_context` takes one location.
        betas: (N, max_len) float, gates.
        captions: (N, max_len) int32, word indices; <END> repeats after the caption's end, and so do
            its last alpha and beta.
    """

    alphas: Tensor
    betas: Tensor
    captions: Tensor


class Beams(NamedTuple):
    """What `build_beam_search` returns: the captions of each image, best first.

    Slots that are not used, because there are fewer captions, have score -inf, length 0 and no word
    but <END>.

    Attributes:
        captions: (N, P, max_len) int32, word indices; <END> repeats after the end.
        scores: (N, P) float, log_probs / lengths**length_penalty.
        alphas: (N, P, max_len, L) float, as in Sampled.
        betas: (N, P, max_len) float, gates.
        log_probs: (N, P) float, the model's log-probability of the caption, <END> included.
        lengths: (N, P) int32, words, <END> included; max_len where the caption was cut.
        word_log_probs: (N, P, max_len) float, the model's log-probability of each word; 0 after the
            end.
    """

    captions: Tensor
    scores: Tensor
    alphas: Tensor
    betas: Tensor
    log_probs: Tensor
    lengths: Tensor
    word_log_probs: Tensor


class Searches:
    """Decoding graphs over `decoding`.

    A subclass has `decoding(max_len)`, which returns a Decoding whose trace is (alpha (R, L), beta
    (R, 1)), and

    Attributes:
        word_to_idx, idx_to_word: dicts of the V words. end, never: numbers of <END> and of words
            never written.
        graph: tf.Graph. L: locations. inputs, features: what is fed, and (N, L, D) float32 that it
            becomes.
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

    def decoding(self, max_len: int = 20) -> Decoding:
        """What every search starts from; each subclass has its own."""
        raise NotImplementedError

    def build_sampler(self, max_len: int = 20, *, min_length: int = 0, no_repeat_ngram: int = 0,
                      sample: bool = False, temperature: float = 1.0, top_k: int = 0,
                      top_p: float = 1.0) -> Sampled:
        """The graph that writes one caption an image, greedily unless `sample`; <NULL>, <START>,
        <UNK> never.

        Args:
            max_len: words at most, <END> included. min_length: words at least, <END> included.
            no_repeat_ngram: n, no n words in a row twice in a caption; 0: they may.
            sample: draw the words; a caption then follows `dropout_seed` and its image's number in
                `image_numbers`.
            temperature, top_k, top_p: see `sampling.sample`.

        Returns:
            Sampled(alphas (N, max_len, L), betas (N, max_len), captions (N, max_len)).
        """
        decoded = self._write(max_len, min_length, no_repeat_ngram, sample, temperature, top_k,
                              top_p)
        alphas, betas = decoded.trace
        return Sampled(alphas, betas[:, :, 0], decoded.words)

    def build_beam_search(self, beam_width: int = 3, max_len: int = 20, length_penalty: float = 0.0,
                          *, n_best: int | None = None, min_length: int = 0,
                          no_repeat_ngram: int = 0, groups: int = 1,
                          diversity_penalty: float = 0.0) -> Beams:
        """The graph of beam search; <NULL>, <START> and <UNK> are never written.

        Args:
            beam_width: K. max_len: words at most, <END> included.
            length_penalty: A, captions are ranked by log-probability / length**A.
            n_best: P, captions an image; None: K. With fewer the search ends sooner.
            groups, diversity_penalty: of diverse beam search, see `beam_search.beam_search`.
            min_length, no_repeat_ngram: see `build_sampler`.

        Returns:
            Beams.
        """
        with tf1.name_scope('beam_search'):
            rules = Rules(self.end, self.never, min_length, no_repeat_ngram)
            found = beam_search(self.decoding(max_len), rules, max_len, beam_width, length_penalty,
                                n_best, groups, diversity_penalty)
            alphas, betas = found.trace
            return Beams(found.words, found.scores, alphas, betas[..., 0], found.log_probs,
                         found.lengths, found.word_log_probs)

    def build_search(self, options: 'DecodingConfig', n_best: int = 1) -> Beams:
        """The graph that a DecodingConfig asks for.

        Args:
            options: DecodingConfig. n_best: captions an image, at most its `beam_width`.

        Returns:
            Beams of `n_best` captions an image; of one where `beam_width` is 1.
        """
        if options.beam_width > 1:
            return self.build_beam_search(
                options.beam_width, options.max_len, options.length_penalty, n_best=n_best,
                min_length=options.min_length, no_repeat_ngram=options.no_repeat_ngram,
                groups=options.beam_groups, diversity_penalty=options.diversity_penalty)
        if n_best != 1:
            raise ValueError(f'{n_best} captions an image need a beam of that width')
        decoded = self._write(options.max_len, options.min_length, options.no_repeat_ngram,
                              options.sample, options.sample_temperature, options.top_k,
                              options.top_p)
        single = tf.nest.map_structure(lambda x: x[:, tf.newaxis], decoded)
        alphas, betas = single.trace
        return Beams(single.words, single.scores, alphas, betas[..., 0], single.scores,
                     single.lengths, single.word_log_probs)

    def _write(self, max_len: int, min_length: int, no_repeat_ngram: int, drawn: bool,
               temperature: float, top_k: int, top_p: float) -> Decoded:
        with tf1.name_scope('sampler'):
            rules = Rules(self.end, self.never, min_length, no_repeat_ngram)
            if not drawn:
                return greedy(self.decoding(max_len), rules, max_len)
            uniform = uniforms(self.dropout_seed, WORD_DRAWS, self.image_numbers, max_len)
            return sample(self.decoding(max_len), rules, max_len, uniform, temperature, top_k,
                          top_p)
