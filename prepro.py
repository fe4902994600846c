#!/usr/bin/env python3
# PYTHON_ARGCOMPLETE_OK
r"""Images and captions -> DATA DIR (features, captions, vocabulary).

    python prepro.py --dataset flickr8k --images Flickr8k/images --captions Flickr8k.token.txt \
        --encoder vgg19 --weights imagenet --out data/flickr8k

`python prepro.py --help` shows more; the command line is read in core/commands/prepro.py.
"""

from core.commands import prepro

if __name__ == '__main__':
    prepro.cli()
