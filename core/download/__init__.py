"""Published data sets and weights, from their addresses to files on this disk."""
