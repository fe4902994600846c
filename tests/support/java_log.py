"""Programs called `java` for tests.

One notes every start of the real one, one stands in for METEOR.
"""

import os

# METEOR reads a table of paraphrases as it starts: 10 seconds of a processor, a dozen times.
STAND_IN = r'''case "$*" in
  *-stdio*)
    while read -r line; do
      case "$line" in
        SCORE*) echo '1 2' ;;
        EVAL*)
          echo 0.5
          rest=${line#*'|||'}
          while [ "$rest" != "$line" ]; do
            echo 0.5
            line=$rest
            rest=${line#*'|||'}
          done ;;
      esac
    done ;;
  *) exec %s "$@" ;;
esac
'''


def logged_java(folder, monkeypatch, stand_in=False):
    """Put a `java` on PATH that notes its arguments, a line a start; returns the log's path.

    Then it is the real one, or with `stand_in` what `meteor_stand_in` puts there.
    """
    log = folder / 'java.log'
    put_on_path(folder, monkeypatch, STAND_IN if stand_in else 'exec %s "$@"\n',
                f'echo "$$ $@" >> {log}\n')
    return log


def meteor_stand_in(folder, monkeypatch):
    """Put a `java` on PATH that starts at once where METEOR is asked for.

    It finds 0.5 for every sentence.
    """
    put_on_path(folder, monkeypatch, STAND_IN)


def put_on_path(folder, monkeypatch, text, first=''):
    from core.metrics import java_tools

    text = f'#!/bin/sh\n{first}{text % java_tools.find_java()}'
    program = folder / 'bin' / 'java'
    program.parent.mkdir()
    program.write_text(text)
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)


def meteor_processes(log):
    """Return the process ids of the METEORs in the log of `logged_java`."""
    return [int(line.split()[0]) for line in log.read_text().splitlines()
            if 'meteor' in line and '-stdio' in line]
