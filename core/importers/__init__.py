"""Other people's trained models, brought into a RUN DIR. Hands on `make_run`."""
