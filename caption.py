#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
"""RUN DIR + photos -> sentences, and where the model looked.

    python caption.py runs/flickr8k dog.jpg

`python caption.py --help` shows more; the command line is read in core/commands/caption.py.
"""

from core.commands import caption

if __name__ == '__main__':
    caption.cli()
