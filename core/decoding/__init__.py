"""Searches for captions over any step function: greedy, sampling, beam search; models that caption
together.

`search_loop` is what all share, and greedy search; `search_graphs` builds a graph for each;
`captions` runs one over the images of a split.
"""
