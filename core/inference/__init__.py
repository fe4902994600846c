"""From a RUN DIR to captions: photos, evaluation, a server, a SavedModel. Hands on `Captioner`."""
