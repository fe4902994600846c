"""Options of a run: the machinery, three tables of options, the presets. No TensorFlow.

An option is one field in one of the tables `model`, `training`, `decoding`: its default, its range
and its help are written there and nowhere else. `config` puts the three together.
"""
