"""Every option of a run: the machinery, the tables of model, training and decoding, the presets. No TensorFlow."""
