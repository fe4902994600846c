"""The RUN DIR: what train.py leaves and everything else reads.

`run_dir.Run` opens one and `make_model` makes its model; `training_start` checks what a training
starts from, `run_ensemble` makes one captioner of several runs, and `compare_runs` draws their
curves. `packed_run` makes one file of a run and opens it, with the card of `model_card`.
"""
