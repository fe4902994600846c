"""Hard attention (paper 4.1) with nothing drawn: every sequence of locations of a tiny caption is walked through.

    exact = Enumeration(variables(), *batch(), alpha_c=0.5)
    exact.gradient(lambda_r=1.0)                     # of the objective, by central differences
    exact.estimates(lambda_r=1.0, reward='to_go')    # what each sequence contributes to the model's gradient

NumPy float64 and no line of `core`: a transcription of the equations, with one path for each of the L^T sequences.
Two routes lead to the expected gradient and must agree. `gradient` differentiates the objective itself, where the
probability p(s) of a sequence is a function of the variables like any other: no score function, no baseline, no
reward to go. `estimates` gives the estimator's value for every sequence, which the model must reproduce when its
locations are given; its mean under p(s) must be `gradient`, its covariance is what `variance` returns.
"""

import functools
import itertools

import numpy as np

N, L, D, H, M, T, V = 2, 3, 5, 4, 3, 3, 9
NULL, START, END = 0, 1, 2
WORDS = ['<NULL>', '<START>', '<END>', '<UNK>', 'a', 'red', 'dog', 'runs', 'home']
WORD_TO_IDX = {word: index for index, word in enumerate(WORDS)}
SIZES = {'dim_feature': (L, D), 'dim_embed': M, 'dim_hidden': H, 'n_time_step': T}
SHAPES = {
    'initial_lstm/w_h': (D, H), 'initial_lstm/b_h': (H,), 'initial_lstm/w_c': (D, H), 'initial_lstm/b_c': (H,),
    'word_embedding/w': (V, M), 'project_features/w': (D, D),
    'attention_layer/w': (H, D), 'attention_layer/b': (D,), 'attention_layer/w_att': (D, 1),
    'selector/w': (H, 1), 'selector/b': (1,),
    'lstm/basic_lstm_cell/kernel': (M + D + H, 4 * H), 'lstm/basic_lstm_cell/bias': (4 * H,),
    'logits/w_h': (H, M), 'logits/b_h': (M,), 'logits/w_ctx2out': (D, M), 'logits/w_out': (M, V),
    'logits/b_out': (V,),
}
BATCH_NORM = {'conv_featuresbatch_norm/beta': (D,), 'conv_featuresbatch_norm/gamma': (D,)}


def variables(seed=109, batch_norm=False):
    """Values of the model's trainable variables by name: large enough for locations to matter to the words."""
    random = np.random.default_rng(seed)
    shapes = {**SHAPES, **(BATCH_NORM if batch_norm else {})}
    return {name: random.normal(0.0, 0.8, shape) for name, shape in sorted(shapes.items())}


def batch():
    """Features (N, L, D) and captions (N, T + 1) of T and T - 1 words."""
    features = np.random.default_rng(11).normal(0.0, 1.5, (N, L, D)).astype(np.float32)
    return features, np.array([[START, 6, 8, END], [START, 5, END, NULL]], np.int32)


def sequences(n_steps=T):
    """All sequences of locations, (L^n_steps, n_steps)."""
    return np.array(list(itertools.product(range(L), repeat=n_steps)))


def number(locations):
    """Locations (..., T) -> the number of their sequence in `sequences()`."""
    return locations @ L**np.arange(T - 1, -1, -1)


def walk(v, features, captions, locations=None, *, activation='relu', temperature=1.0, alpha_c=0.0, batch_norm=False):
    """The model under teacher forcing with the locations given.

    Args:
        v: variables by name. features: (N, L, D). captions: (N, T + 1).
        locations: (S, T), walked by every caption; None: the expected context, with S = 1.

    Returns:
        dict: words (N, S, T), log p of the target words; draws (N, S, T), log alpha_t(s_t) (0 without locations);
        entropy (N, S, T), of alpha_t; each 0 at padding. alphas (N, S, T, L). penalty (N, S), the regulariser.
        probability (N, S), of a sequence, padding steps included.
    """
    a = np.asarray(features, np.float64)
    if batch_norm:
        mean, variance = a.mean(axis=(0, 1)), a.var(axis=(0, 1))
        a = ((a - mean) / np.sqrt(variance + 1e-3) * v['conv_featuresbatch_norm/gamma']
             + v['conv_featuresbatch_norm/beta'])
    n, paths = len(a), 1 if locations is None else len(locations)
    a = np.repeat(a[:, None], paths, axis=1)  # (N, S, L, D)
    mean = a.mean(axis=2)
    h = np.tanh(mean @ v['initial_lstm/w_h'] + v['initial_lstm/b_h'])
    c = np.tanh(mean @ v['initial_lstm/w_c'] + v['initial_lstm/b_c'])
    projected = a @ v['project_features/w']
    found = {name: [] for name in ('words', 'draws', 'entropy', 'alphas')}
    for t in range(captions.shape[1] - 1):
        word = np.broadcast_to(v['word_embedding/w'][captions[:, t]][:, None], (n, paths, M))
        query = h @ v['attention_layer/w'] + v['attention_layer/b']
        hidden = projected + query[:, :, None]
        hidden = np.maximum(hidden, 0) if activation == 'relu' else np.tanh(hidden)
        log_alpha = log_softmax((hidden @ v['attention_layer/w_att'])[..., 0] / temperature)
        alpha = np.exp(log_alpha)
        if locations is None:
            context, drawn = (alpha[..., None] * a).sum(axis=2), np.zeros((n, paths))
        else:
            context = a[:, np.arange(paths), locations[:, t]]
            drawn = log_alpha[:, np.arange(paths), locations[:, t]]
        context = context * sigmoid(h @ v['selector/w'] + v['selector/b'])
        gates = (np.concatenate([word, context, h], axis=2) @ v['lstm/basic_lstm_cell/kernel']
                 + v['lstm/basic_lstm_cell/bias'])
        i, j, f, o = np.split(gates, 4, axis=2)
        c = sigmoid(f + 1) * c + sigmoid(i) * np.tanh(j)
        h = sigmoid(o) * np.tanh(c)
        output = np.tanh(h @ v['logits/w_h'] + v['logits/b_h'] + context @ v['logits/w_ctx2out'] + word)
        scores = log_softmax(output @ v['logits/w_out'] + v['logits/b_out'])
        found['words'].append(scores[np.arange(n), :, captions[:, t + 1]])
        found['draws'].append(drawn)
        found['entropy'].append(-(alpha * log_alpha).sum(axis=2))
        found['alphas'].append(alpha)
    found = {name: np.stack(steps, axis=2) for name, steps in found.items()}
    found['probability'] = np.exp(found['draws'].sum(axis=2))
    real = (captions[:, 1:] != NULL)[:, None, :]
    for name in ('words', 'draws', 'entropy'):
        found[name] = found[name] * real
    totals = (found['alphas'] * real[..., None]).sum(axis=2)
    found['penalty'] = alpha_c * ((real.shape[2] / L - totals)**2).sum(axis=2)
    return found


def sigmoid(x):
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def log_softmax(x):
    """Along the last axis."""
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def differentiate(function, v, step=1e-5):
    """Central differences of function(v) -> array by every number of `v`: (array's shape, P), P in `v`'s order."""
    columns = []
    for name, value in v.items():
        for index in np.ndindex(value.shape):
            shifted = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                shifted.append(function({**v, name: moved}))
            columns.append((shifted[0] - shifted[1]) / (2 * step))
    return np.stack(columns, axis=-1)


def tails(x):
    """Sums of x (N, S, T, ...) over the steps from t on, t included."""
    return np.cumsum(x[:, :, ::-1], axis=2)[:, :, ::-1]


def moved(before, rewards, counted):
    """The moving baseline, () or (T,), after a run with rewards (rows, T), of which `counted` (rows, T) had a draw."""
    if before.shape == ():
        return 0.9 * before + 0.1 * rewards[counted[:, 0] > 0, 0].mean()
    after, left = before.copy(), counted[:, ::-1].cumsum(axis=1)[:, ::-1]
    for words in range(1, T + 1):
        chosen = (left == words) & (counted > 0)
        if chosen.any():
            after[words - 1] = 0.9 * before[words - 1] + 0.1 * rewards[chosen].mean()
    return after


class Enumeration:
    """Exact moments of the gradient of hard attention for one set of variables and one batch."""

    def __init__(self, v, features, captions, **walk_options):
        self.v, self.captions = v, captions
        self.walk = functools.partial(walk, features=features, captions=captions, **walk_options)
        self.paths = sequences(captions.shape[1] - 1)
        self.at = self.walk(v, locations=self.paths)
        self.soft_at = self.walk(v)
        self.real = (captions[:, 1:] != NULL)[:, None, :]

    @functools.cached_property
    def slopes(self):
        """By every number: d words (summed) and d penalty (N, S, P), d entropy (summed), d draws (N, S, T, P)."""
        return self._slopes(self.paths)

    @functools.cached_property
    def soft_slopes(self):
        """The same on the path of the expected context; S = 1."""
        return self._slopes(None)

    def _slopes(self, locations):
        def function(v):
            at = self.walk(v, locations=locations)
            return np.concatenate([at['words'].sum(axis=2, keepdims=True), at['penalty'][:, :, None],
                                   at['entropy'].sum(axis=2, keepdims=True), at['draws']], axis=2)

        stacked = differentiate(function, self.v)
        return {'words': stacked[:, :, 0], 'penalty': stacked[:, :, 1], 'entropy': stacked[:, :, 2],
                'draws': stacked[:, :, 3:]}

    def named(self, flat):
        """A gradient (P,) as a dict of arrays by variable."""
        ends = np.cumsum([value.size for value in self.v.values()])[:-1]
        return {name: part.reshape(self.v[name].shape)
                for name, part in zip(self.v, np.split(flat, ends), strict=True)}

    # ---- the first route: the objective

    def gradient(self, lambda_r=1.0, lambda_e=0.0, semi_sampling_p=1.0, step=1e-5):
        """(P,), of the loss that the training gradient has in expectation, by central differences.

        In the likelihood, the variables inside log p(y|s) and those inside p(s) are two copies: lambda_r weights the
        second one's derivative. Entropy and regulariser are differentiated on the path that was drawn.
        """
        p, log_p = self.at['probability'], self.at['words'].sum(axis=2)

        def loss(v):
            at = self.walk(v, locations=self.paths)
            sampled = (-p * at['words'].sum(axis=2) - lambda_r * at['probability'] * log_p
                       + p * at['penalty'] - lambda_e * p * at['entropy'].sum(axis=2)).sum()
            if semi_sampling_p == 1:
                return sampled / len(p)
            at = self.walk(v)
            soft = (-at['words'].sum(axis=2) + at['penalty'] - lambda_e * at['entropy'].sum(axis=2)).sum()
            return (semi_sampling_p * sampled + (1 - semi_sampling_p) * soft) / len(p)

        return differentiate(loss, self.v, step)

    def total_gradient(self, step=1e-5):
        """(P,), of -sum_s p(s) log p(y|s), both factors moving together: what lambda_r = 1 must give."""
        def loss(v):
            at = self.walk(v, locations=self.paths)
            return -(at['probability'] * at['words'].sum(axis=2)).sum() / len(self.captions)

        return differentiate(loss, self.v, step)

    # ---- the second route: the estimator

    def rewards(self, reward='sequence'):
        """(N, S, T): of the draw at each step of each sequence; 0 at padding."""
        words = self.at['words']
        if reward == 'to_go':
            return tails(words)
        return words.sum(axis=2, keepdims=True) * self.real

    def baseline(self, reward='sequence', baseline='none'):
        """(N, 1, T): 'none', or 'moving': its stationary value, the mean over captions of the expected reward.

        'self_critical': the reward of the sequence that always takes the likeliest location.
        """
        rewards, p = self.rewards(reward), self.at['probability'][:, :, None]
        if baseline == 'none':
            return np.zeros_like(rewards[:, :1])
        if baseline == 'self_critical':
            best = [self.likeliest(k) for k in range(len(rewards))]
            return rewards[np.arange(len(best)), best][:, None]
        mean, left = (p * rewards).sum(axis=1), tails(self.real)[:, 0]  # (N, T): reward, words left
        if reward == 'sequence':
            return np.where(self.real, mean[:, 0].mean(), 0.0)
        by_left = {k: mean[left == k].mean() for k in np.unique(left) if k}
        return np.vectorize(lambda k: by_left.get(k, 0.0))(left)[:, None]

    def likeliest(self, k):
        """The number of the sequence that always takes the likeliest location, for caption k."""
        for s, path in enumerate(self.paths):
            if (self.at['alphas'][k, s].argmax(axis=1) == path).all():
                return s
        raise AssertionError('one sequence follows the likeliest locations')

    def estimates(self, lambda_r=1.0, lambda_e=0.0, reward='sequence', baseline=0.0):
        """(N, S, P): gradient of the loss of one caption when one sequence is drawn, with a baseline (N, 1, T)."""
        advantage = (self.rewards(reward) - baseline) * self.real
        score = np.einsum('nst,nstp->nsp', advantage, self.slopes['draws'])
        return self._pathwise(self.slopes, lambda_e) - lambda_r * score

    def soft(self, lambda_e=0.0):
        """(N, P): the same for the expected context."""
        return self._pathwise(self.soft_slopes, lambda_e)[:, 0]

    @staticmethod
    def _pathwise(slopes, lambda_e):
        return -slopes['words'] + slopes['penalty'] - lambda_e * slopes['entropy']

    def of_draws(self, locations, sampled, moving=None, lambda_r=1.0, lambda_e=0.0, reward='sequence',
                 baseline='none', n_samples=1, **_):
        """What a run's gradient must be, given what it drew.

        Args:
            locations: (rows, T), rows of equal captions together. sampled: (rows,) bool, the coins.
            moving: the moving baseline before the run: a number, or (T,) by the number of words left.

        Returns:
            (gradient (P,), rewards (rows, T)).
        """
        captions = np.arange(len(locations)) * len(self.captions) // len(locations)
        rewards = self.rewards(reward)[captions, number(locations)]
        subtracted = np.zeros_like(rewards)
        if baseline == 'moving' and reward == 'sequence':
            subtracted += moving
        elif baseline == 'moving':
            left = tails(self.real)[captions, 0]
            subtracted = np.where(left > 0, moving[left - 1], 0.0)
        elif baseline == 'self_critical':
            subtracted = self.baseline(reward, baseline)[captions, 0]
        elif baseline == 'leave_one_out':
            for row in range(len(rewards)):
                first = row - row % n_samples
                subtracted[row] = np.mean([rewards[i] for i in range(first, first + n_samples) if i != row], axis=0)
        score = np.einsum('rt,rtp->rp', (rewards - subtracted) * self.real[captions, 0],
                          self.slopes['draws'][captions, number(locations)])
        drawn = self._pathwise(self.slopes, lambda_e)[captions, number(locations)] - lambda_r * score
        return np.where(sampled[:, None], drawn, self.soft(lambda_e)[captions]).mean(axis=0), rewards

    def moments(self, lambda_r=1.0, lambda_e=0.0, reward='sequence', baseline='none', n_samples=1,
                semi_sampling_p=1.0):
        """Mean (P,) and variance (P,) of the gradient of one row, averaged over the captions."""
        p = self.at['probability'][:, :, None]
        chosen = 0.0 if baseline == 'leave_one_out' else self.baseline(reward, baseline)
        each = self.estimates(lambda_r, lambda_e, reward, chosen)
        mean = (p * each).sum(axis=1)
        if baseline == 'leave_one_out':
            variance = self._pairs_variance(lambda_r, lambda_e, reward, n_samples)
        else:
            variance = ((p * each**2).sum(axis=1) - mean**2) / n_samples
        soft = self.soft(lambda_e)
        mixed = semi_sampling_p * mean + (1 - semi_sampling_p) * soft
        second = semi_sampling_p * (variance + mean**2) + (1 - semi_sampling_p) * soft**2
        return mixed.mean(axis=0), (second - mixed**2).mean(axis=0)

    def _pairs_variance(self, lambda_r, lambda_e, reward, n_samples):
        """Of the leave-one-out estimator: a U-statistic, the mean over pairs of a symmetric kernel."""
        rewards, draws, pathwise = self.rewards(reward), self.slopes['draws'], self._pathwise(self.slopes, lambda_e)
        found = []
        for k, p in enumerate(self.at['probability']):
            gap = rewards[k, :, None] - rewards[k, None]
            score = draws[k, :, None] - draws[k, None]
            kernel = (pathwise[k, :, None] + pathwise[k, None]
                      - lambda_r * np.einsum('abt,abtp->abp', gap, score)) / 2
            one = np.einsum('b,abp->ap', p, kernel)
            mean = p @ one
            zeta1 = p @ one**2 - mean**2
            zeta2 = np.einsum('a,b,abp->p', p, p, kernel**2) - mean**2
            found.append(2 / (n_samples * (n_samples - 1)) * (2 * (n_samples - 2) * zeta1 + zeta2))
        return np.array(found)
