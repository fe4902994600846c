"""The RUN DIR: what train.py leaves and everything else reads.

`run_dir.Run` opens one and `make_model` makes its model; `run_ensemble` makes one captioner of
several runs, and `compare_runs` draws their curves.
"""
