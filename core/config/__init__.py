"""Every option of a run: the machinery, the tables of model, training and decoding, the presets. No
TensorFlow.

An option is one field in one of the tables `model`, `training`, `decoding`: its default, its range
and its help are written there and nowhere else. `config` puts the three together.
"""
