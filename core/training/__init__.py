"""From a DATA DIR to a RUN DIR: the loop, optimizers, checkpoints, logs. Hands on `Solver`."""
