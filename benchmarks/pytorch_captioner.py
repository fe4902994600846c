"""A plain PyTorch captioner of the same mathematics, in the style of PyTorch tutorials.

    model = Captioner(n_words=10000)
    loss = model(features, captions)              # (N, L, D) float32, (N, T + 1) int64
    words, score = beam_search(model, features[0], beam_width=3, max_len=20)

Captions are sorted by length and the batch shrinks as they end; the vocabulary's logits are
computed step by step and packed before the cross entropy. As in the popular tutorial, the features'
projection is computed inside the attention, at every step; `hoist_projection=True` computes it
once, which is the first thing an attentive reader would change. Letters in shapes as in
benchmarks.textbook.
"""

import torch
from torch import nn
from torch.nn.functional import cross_entropy, log_softmax
from torch.nn.utils.rnn import pack_padded_sequence

from core.data.vocabulary import END, NULL, START, UNK


class Captioner(nn.Module):
    """The default mathematics of `CaptionGenerator` in PyTorch.

    Soft attention with gate, LSTMCell and deep output.

    Only the running variance differs: PyTorch's is the unbiased one, larger by 1 / (N L - 1).

    Args:
        n_words: V; words 0 to 3 are <NULL>, <START>, <END>, <UNK>.
        dim_feature: (L, D). dim_embed: M. dim_hidden: H. n_time_step: T, for the regulariser's
            target T / L.
        alpha_c: weight of the doubly stochastic regulariser. dropout: rate, on h and the output
            layer.
        hoist_projection: project the features once an image, not at every step.
    """

    def __init__(self, n_words, dim_feature=(196, 512), dim_embed=512, dim_hidden=1024,
                 n_time_step=16, alpha_c=1.0, dropout=0.5, hoist_projection=False):
        super().__init__()
        (self.L, D), M, H, self.T, self.V = dim_feature, dim_embed, dim_hidden, n_time_step, n_words
        self.alpha_c, self.hoist_projection = alpha_c, hoist_projection
        self.batch_norm = nn.BatchNorm1d(D, eps=1e-3, momentum=0.05)
        self.initial_h, self.initial_c = nn.Linear(D, H), nn.Linear(D, H)
        self.embedding = nn.Embedding(n_words, M)
        self.project = nn.Linear(D, D, bias=False)
        self.query, self.score = nn.Linear(H, D), nn.Linear(D, 1, bias=False)
        self.gate = nn.Linear(H, 1)
        self.cell = nn.LSTMCell(M + D, H)
        self.out_h, self.out_context = nn.Linear(H, M), nn.Linear(D, M, bias=False)
        self.out = nn.Linear(M, n_words)
        self.dropout = nn.Dropout(dropout)

    def normalised(self, features):
        """Return features (N, L, D), batch-normalised over images and locations."""
        return self.batch_norm(features.flatten(0, 1)).view_as(features)

    def initial_state(self, features):
        """Return h, c (N, H) from features (N, L, D)."""
        mean = features.mean(dim=1)
        return torch.tanh(self.initial_h(mean)), torch.tanh(self.initial_c(mean))

    def step(self, features, projected, words, h, c):
        """Compute one word of n captions.

        Args:
            features: (n, L, D). projected: (n, L, D), or None: computed here. words: (n, M). h, c:
                (n, H).

        Returns:
            (logits (n, V), alpha (n, L), h, c).
        """
        if projected is None:
            projected = self.project(features)
        scores = self.score(torch.relu(projected + self.query(h).unsqueeze(1))).squeeze(2)
        alpha = torch.softmax(scores, dim=1)
        context = (features * alpha.unsqueeze(2)).sum(dim=1)
        context = torch.sigmoid(self.gate(h)) * context
        h, c = self.cell(torch.cat([words, context], dim=1), (h, c))
        hidden = torch.tanh(self.out_h(self.dropout(h)) + self.out_context(context) + words)
        return self.out(self.dropout(hidden)), alpha, h, c

    def forward(self, features, captions):
        """Return the loss of a batch.

        That is cross entropy summed over words, divided by N, plus the regulariser.

        Args:
            features: (N, L, D). captions: (N, T + 1) int64, <START> words <END> <NULL> ...
        """
        lengths, order = (captions[:, 1:] != NULL).sum(dim=1).sort(dim=0, descending=True)
        features, captions = self.normalised(features[order]), captions[order]
        lengths = lengths.tolist()
        projected = self.project(features) if self.hoist_projection else None
        h, c = self.initial_state(features)
        words = self.embedding(captions)
        predictions = features.new_zeros(len(lengths), lengths[0], self.V)
        alphas = features.new_zeros(len(lengths), lengths[0], self.L)
        for t in range(lengths[0]):
            n = sum(length > t for length in lengths)
            logits, alpha, h, c = self.step(features[:n],
                                            None if projected is None else projected[:n],
                                            words[:n, t], h[:n], c[:n])
            predictions[:n, t] = logits
            alphas[:n, t] = alpha
        scores = pack_padded_sequence(predictions, lengths, batch_first=True).data
        targets = pack_padded_sequence(captions[:, 1:], lengths, batch_first=True).data
        loss = cross_entropy(scores, targets, reduction='sum')
        loss = loss + self.alpha_c * ((self.T / self.L - alphas.sum(dim=1)) ** 2).sum()
        return loss / len(lengths)

    def load(self, values):
        """Load the weights of `CaptionGenerator`: dict of variable name -> array."""
        M, H = self.embedding.embedding_dim, self.cell.hidden_size
        kernel = values['lstm/basic_lstm_cell/kernel']
        bias = values['lstm/basic_lstm_cell/bias'].copy()
        bias[2 * H : 3 * H] += 1  # the forget bias
        # to i, f, j, o
        order = [column for gate in (0, 2, 1, 3) for column in range(gate * H, (gate + 1) * H)]
        inputs = len(kernel) - H
        with torch.no_grad():
            for parameter, value in (
                (self.batch_norm.weight, values['conv_featuresbatch_norm/gamma']),
                (self.batch_norm.bias, values['conv_featuresbatch_norm/beta']),
                (self.batch_norm.running_mean, values['conv_featuresbatch_norm/moving_mean']),
                (self.batch_norm.running_var, values['conv_featuresbatch_norm/moving_variance']),
                (self.initial_h.weight, values['initial_lstm/w_h'].T),
                (self.initial_h.bias, values['initial_lstm/b_h']),
                (self.initial_c.weight, values['initial_lstm/w_c'].T),
                (self.initial_c.bias, values['initial_lstm/b_c']),
                (self.embedding.weight, values['word_embedding/w'].reshape(-1, M)),
                (self.project.weight, values['project_features/w'].T),
                (self.query.weight, values['attention_layer/w'].T),
                (self.query.bias, values['attention_layer/b']),
                (self.score.weight, values['attention_layer/w_att'].T),
                (self.gate.weight, values['selector/w'].T),
                (self.gate.bias, values['selector/b']),
                (self.cell.weight_ih, kernel[:inputs, order].T),
                (self.cell.weight_hh, kernel[inputs:, order].T),
                (self.cell.bias_ih, bias[order]),
                (self.cell.bias_hh, 0 * bias),
                (self.out_h.weight, values['logits/w_h'].T),
                (self.out_h.bias, values['logits/b_h']),
                (self.out_context.weight, values['logits/w_ctx2out'].T),
                (self.out.weight, values['logits/w_out'].T),
                (self.out.bias, values['logits/b_out']),
            ):
                parameter.copy_(torch.from_numpy(value.copy()))


@torch.no_grad()
def beam_search(model, features, beam_width, max_len):
    """Return the best sentence of one image, searched in Python.

    Each sentence that ends takes its place out of the beam.

    Args:
        model: Captioner, in evaluation mode. features: (L, D). beam_width: sentences kept. max_len:
            words written at most, <END> included; sentences that reach it unfinished compete with
            the finished ones.

    Returns:
        (words as a list of ints, <END> included where it was written; the sum of their
        log-probabilities).
    """
    features = model.normalised(features.unsqueeze(0))
    projected = model.project(features) if model.hoist_projection else None
    h, c = model.initial_state(features)
    sentences, scores, finished = torch.full((1, 1), START), torch.zeros(1), []
    for _ in range(max_len):
        n = len(sentences)
        logits, _, h, c = model.step(features.expand(n, -1, -1),
                                     None if projected is None else projected.expand(n, -1, -1),
                                     model.embedding(sentences[:, -1]), h, c)
        log_probs = log_softmax(logits, dim=1)
        log_probs[:, [NULL, START, UNK]] = float('-inf')
        totals = (scores.unsqueeze(1) + log_probs).flatten()
        scores, chosen = totals.topk(min(beam_width - len(finished), len(totals)))
        parents, words = chosen // model.V, chosen % model.V
        sentences = torch.cat([sentences[parents], words.unsqueeze(1)], dim=1)
        ended = words == END
        finished += zip(sentences[ended, 1:].tolist(), scores[ended].tolist(), strict=True)
        going = ~ended & scores.isfinite()  # a wide beam may reach words that are never written
        sentences, scores = sentences[going], scores[going]
        h, c = h[parents[going]], c[parents[going]]
        if not len(sentences):
            break
    finished += zip(sentences[:, 1:].tolist(), scores.tolist(), strict=True)
    return max(finished, key=lambda found: found[1])
