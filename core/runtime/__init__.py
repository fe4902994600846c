"""TensorFlow's plumbing: its import (`backend`), devices and sessions, gradients of our own,
creating variables.
"""
