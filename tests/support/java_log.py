"""Which Java processes were started: a `java` on PATH that keeps a log."""

import os

from core.metrics import java_tools


def logged_java(folder, monkeypatch):
    """Puts a `java` on PATH that notes its arguments, a line a start, and is the real one; returns the log's path."""
    real, log = java_tools.find_java(), folder / 'java.log'
    program = folder / 'bin' / 'java'
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$$ $@" >> {log}\nexec {real} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(program.parent), prepend=os.pathsep)
    return log


def meteor_processes(log):
    """Process ids of the METEORs in the log of `logged_java`."""
    return [int(line.split()[0]) for line in log.read_text().splitlines() if 'meteor' in line and '-stdio' in line]
