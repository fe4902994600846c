"""From a photo to its annotation vectors: reading, preprocessing, networks, their weights.

In the order of the pixels: `photos` decodes a file, `preprocessing` cuts the square, `encoder`
computes the vectors by one of the `networks`, whose weights `weight_files` reads. A new encoder is
one row of `known_encoders.ENCODERS`.
"""
