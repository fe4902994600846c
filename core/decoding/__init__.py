"""Searches for captions over any step function, and models that caption together.

`search_loop` is what all searches share, and greedy search; `sampling` draws words, `beam_search`
keeps several captions, `word_rules` says which words may be written; `search_graphs` builds a graph
for each; `captions` runs one over the images of a split; `ensemble` averages models.
"""
