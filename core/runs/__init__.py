"""The RUN DIR: what train.py leaves and everything else reads."""
