"""What the scripts share on the terminal: one-line errors with exit status 2, progress bars, numbers for people."""

import os
import signal
import sys

from core.errors import InputError

PLAIN_BAR = '{desc}: {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]'


def run(main):
    """Call a script's `main`, turning bad input into one line and status 2, and Ctrl-C into status 130."""
    # TensorFlow's C++ notices; set here, in a program of ours, never on `import core`.
    os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')
    for stream in (sys.stdout, sys.stderr):  # a caption must not end a program on a terminal that cannot show it
        stream.reconfigure(errors='backslashreplace')
    try:
        status = main() or 0
    except InputError as error:
        print(f'{os.path.basename(sys.argv[0])}: error: {error}', file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        status = 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of our output went away (`| head`): no more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        where = f'{error.filename}: ' if error.filename else ''
        print(f'{os.path.basename(sys.argv[0])}: error: {where}{error.strerror or error}', file=sys.stderr)
        status = 2
    sys.exit(status)


def progress(total, what, initial=0, unit='it'):
    """A tqdm bar on stderr with rate and remaining time; where stderr is no terminal, a line every 10 seconds."""
    terminal = sys.stderr.isatty()
    common = {'total': total, 'desc': what, 'initial': initial, 'unit': unit, 'file': sys.stderr, 'smoothing': 0.1}
    from core import bars  # tqdm is slow to import, and `--help` shows no bar

    if terminal:
        return bars.tqdm(**common, dynamic_ncols=True, mininterval=0.2)
    return bars.Lines(**common, mininterval=10, bar_format=PLAIN_BAR)


def size_text(n_bytes):
    """1234567890 -> '1.23 GB'."""
    for unit in ('B', 'kB', 'MB', 'GB'):
        if n_bytes < 1000:
            return f'{n_bytes:.3g} {unit}'
        n_bytes /= 1000
    return f'{n_bytes:.3g} TB'


def table(rows, header):
    """Lines of a plain text table: first column to the left, the others to the right."""
    rows = [[str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        '  '.join([row[0].ljust(widths[0]), *(row[i].rjust(widths[i]) for i in range(1, len(row)))]) for row in rows
    ]
    return '\n'.join([lines[0], '-' * len(lines[0]), *lines[1:]])


def epoch_bar(total, what, initial):
    """A bar for training steps; where stderr is no terminal nothing but the lines written to it."""
    from core import bars

    return bars.tqdm(total=total, desc=what, initial=initial, unit='step', file=sys.stderr, dynamic_ncols=True,
                     leave=False, disable=not sys.stderr.isatty())
