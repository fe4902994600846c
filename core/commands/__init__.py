"""The command lines: what prepro.py, train.py, evaluate.py and caption.py run."""
