#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""DATA DIR -> RUN DIR: train a captioner.

    python train.py data/flickr8k --out runs/flickr8k

`python train.py --help` shows more; the command line is read in core/commands/train.py.
"""

from core.commands import train

if __name__ == '__main__':
    train.cli()
