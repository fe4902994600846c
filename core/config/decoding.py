"""Options of decoding: how captions are written at validation and evaluation."""

import dataclasses

from core.common.errors import InputError
from core.config.options import option


@dataclasses.dataclass(frozen=True)
class DecodingConfig:
    """The search for captions: its length, its beam, its draws."""

    max_len: int = option(20, 'words of a decoded caption at most, <END> included', minimum=1)
    decode_batch: int = option(64, 'images decoded together', minimum=1)
    min_length: int = option(0, 'words of a decoded caption at least, <END> included', minimum=0)
    no_repeat_ngram: int = option(0, 'n: no n words in a row occur twice in a caption; 0: they may',
                                  minimum=0)
    # beam search
    beam_width: int = option(1, 'hypotheses kept of an image; 1: greedy', minimum=1, maximum=1000)
    length_penalty: float = option(0.0, 'A: beam search ranks captions by log-probability / '
                                   'length**A', minimum=0)
    beam_groups: int = option(1, 'groups of the beam that are kept diverse', minimum=1)
    diversity_penalty: float = option(0.0, 'taken off the log-probability of words that earlier '
                                      'groups wrote at the same step', minimum=0)
    # sampling
    sample: bool = option(False, 'words are drawn instead of searched for')
    sample_temperature: float = option(1.0, 'words are drawn from softmax(log p / temperature)',
                                       minimum=0.01)
    top_k: int = option(0, 'words are drawn from the k likeliest; 0: from all', minimum=0)
    top_p: float = option(1.0,
                          'words are drawn from the likeliest that together have probability p',
                          minimum=0.001, maximum=1)

    def check_combination(self, where: str = 'configuration') -> None:
        """Raise InputError if options do not fit together.

        Raises:
            InputError: names the options and the way out.
        """
        diverse = self.beam_groups > 1
        drawing = self.sample_temperature != 1.0 or self.top_k > 0 or self.top_p < 1
        for wrong, message in (
            (self.min_length > self.max_len, f'min_length={self.min_length} is more than '
             f'max_len={self.max_len}'),
            (self.sample and self.beam_width > 1, 'sample=true needs beam_width=1: words are '
             'drawn, or searched for'),
            (self.length_penalty > 0 and self.beam_width == 1, 'length_penalty needs beam_width of '
             '2 or more: there is nothing to rank'),
            (self.beam_width % self.beam_groups > 0, f'beam_groups={self.beam_groups} must divide '
             f'beam_width={self.beam_width}'),
            (diverse and self.diversity_penalty == 0, 'beam_groups needs diversity_penalty above '
             '0: without it the groups are the same'),
            (not diverse and self.diversity_penalty > 0, 'diversity_penalty needs beam_groups of 2 '
             'or more'),
            (drawing and not self.sample, 'sample_temperature, top_k and top_p need '
             'sample=true')):
            if wrong:
                raise InputError(f'{where}: {message}')


# names of all options of decoding
DECODING = [field.name for field in dataclasses.fields(DecodingConfig)]
