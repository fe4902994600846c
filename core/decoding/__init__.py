"""Searches for captions over any step function: greedy, sampling, beam search; models that caption together."""
