#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""RUN DIR -> captions, BLEU/METEOR/ROUGE-L/CIDEr, attention pictures.

    python evaluate.py runs/flickr8k

`python evaluate.py --help` shows more; the command line is read in core/commands/evaluate.py.
"""

from core.commands import evaluate

if __name__ == '__main__':
    evaluate.cli()
