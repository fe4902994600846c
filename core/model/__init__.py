"""The paper: the decoder with its attention, the training graph and the gradients. Hands on `CaptionGenerator`."""
