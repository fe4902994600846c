"""TensorFlow's plumbing: its import, devices and sessions, XLA, gradients, variables, seeds."""
