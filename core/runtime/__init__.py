"""TensorFlow's plumbing: its import, devices and sessions, gradients of our own, creating variables."""
