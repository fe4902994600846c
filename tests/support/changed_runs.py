"""Runs that differ from a sample in options and in variables of the best model."""

import shutil

import numpy as np

from core.common.files import read_json, write_json
from core.runs.run_dir import Run
from core.runtime.backend import tf, tf1


def changed_run(source, place, changes, change=None):
    """Return a copy of a run with other options and a changed best model.

    Options are {section: {name: value}}.

    Args:
        change: function of the session and the dict of the best model's variables by name.
    """
    shutil.copytree(source, place)
    config = read_json(place / 'config.json')
    for section, values in changes.items():
        config[section].update(values)
    write_json(place / 'config.json', config)
    run = Run(place)
    if change:
        with tf.Graph().as_default() as graph:
            model = run.make_model()
            with tf1.Session(graph=graph) as session:
                if run.finetuned:  # for the first time: the best model has nothing of the encoder
                    model.encoder.restore(session)
                info = run.best().info()
                run.best(model.variables).restore(session)
                change(session, {variable.op.name: variable for variable in model.saved})
                run.best(model.saved).save(session, info)
    return run


def put(session, variable, value):
    session.run(variable.initializer, {
        variable.initializer.inputs[1]: np.broadcast_to(value, variable.shape)})
