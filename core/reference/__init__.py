"""The paper in plain NumPy, equation by equation: slow, easy to read, and what the TensorFlow graph
is held to.

Begin with `equations`. `location_paths` is hard attention with nothing drawn, `finite_differences`
takes gradients without calculus, `sample_model` is a model small enough for both. Nothing else of
`core` imports this room.
"""
