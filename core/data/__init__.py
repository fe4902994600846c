"""The DATA DIR: made by prepro.py, read in batches by training, validation and evaluation."""
