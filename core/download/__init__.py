"""Published data sets and weights, from their addresses to files on this disk.

`catalogue` has the addresses. `download` fetches data sets, by `http_file` and `zip_archive`;
`imagenet_weights` the weights of the encoders, by pooch.
"""
