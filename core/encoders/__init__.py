"""From a photo to its annotation vectors: reading, preprocessing, the convolutional networks and their weights."""
