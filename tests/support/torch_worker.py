"""PyTorch for tests/benchmarks/test_textbook.py, in a process of its own.

Beside TensorFlow it can crash.
"""

import numpy as np
import torch

from benchmarks.pytorch_captioner import Captioner, beam_search
from benchmarks.pytorch_sides import TorchTraining


class Checked:
    """A Captioner in float64 with given weights (dict of the TF1 name -> array)."""

    def __init__(self, n_words, values, **options):
        self.model = Captioner(n_words, **options).double()
        self.model.load(values)

    def gradients(self, features, captions):
        """Return the loss and the gradients, by TF1 name and in its layout.

        Only the gates of the cell are in another order: i, f, j, o.
        """
        model = self.model
        loss = model(torch.from_numpy(features.astype(np.float64)),
                     torch.from_numpy(captions.astype(np.int64)))
        loss.backward()
        kernel = torch.cat([model.cell.weight_ih.grad.T, model.cell.weight_hh.grad.T])
        found = {
            'project_features/w': model.project.weight.grad.T,
            'attention_layer/w': model.query.weight.grad.T,
            'attention_layer/b': model.query.bias.grad,
            'attention_layer/w_att': model.score.weight.grad.T,
            'selector/w': model.gate.weight.grad.T, 'selector/b': model.gate.bias.grad,
            'initial_lstm/w_h': model.initial_h.weight.grad.T,
            'initial_lstm/b_h': model.initial_h.bias.grad,
            'initial_lstm/w_c': model.initial_c.weight.grad.T,
            'initial_lstm/b_c': model.initial_c.bias.grad,
            'logits/w_h': model.out_h.weight.grad.T, 'logits/b_h': model.out_h.bias.grad,
            'logits/w_ctx2out': model.out_context.weight.grad.T,
            'logits/w_out': model.out.weight.grad.T, 'logits/b_out': model.out.bias.grad,
            'word_embedding/w': model.embedding.weight.grad,
            'conv_featuresbatch_norm/gamma': model.batch_norm.weight.grad,
            'conv_featuresbatch_norm/beta': model.batch_norm.bias.grad,
            'lstm/basic_lstm_cell/kernel': kernel,
            'lstm/basic_lstm_cell/bias': model.cell.bias_ih.grad,
        }
        return loss.item(), {name: gradient.numpy() for name, gradient in found.items()}

    def beam(self, features, beam_width, max_len):
        """Return the words and the score of one image."""
        self.model.eval()
        return beam_search(self.model, torch.from_numpy(features.astype(np.float64)), beam_width,
                           max_len)


class Trained(TorchTraining):
    """The side that trains, whose parameters can be looked at."""

    def parameters(self):
        """Return a list of arrays."""
        return [parameter.detach().numpy().copy() for parameter in self.model.parameters()]
