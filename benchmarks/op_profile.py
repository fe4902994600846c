"""A profile of a step by kind of operation and by name scope, from TensorFlow's own tracer."""

import collections
import re

LABEL = re.compile(r' = (\w+)\(')  # '[memory] name = Kind(inputs)'
# They last as long as the operations inside them, which are traced too.
CALLS = {'PartitionedCall', 'StatefulPartitionedCall', 'While', 'StatelessWhile', 'If',
         'StatelessIf', 'Case', 'StatelessCase', 'SymbolicGradient'}


def shares(step_stats):
    """Sum up a trace.

    Args:
        step_stats: StepStats of a RunMetadata, made with FULL_TRACE.

    Returns:
        dict: 'ops' and 'scopes', each a list of (name, share of the time of all operations, calls),
        the largest first; 'op_seconds', the sum over all operations, which run beside each other
        where they can.
    """
    ops, scopes = (collections.defaultdict(lambda: [0, 0]) for _ in range(2))
    total = 0
    for device in step_stats.dev_stats:
        for node in device.node_stats:
            label = LABEL.search(node.timeline_label)
            kind = label.group(1) if label else node.node_name
            if kind in CALLS:
                continue
            micros = node.op_end_rel_micros - node.op_start_rel_micros
            total += micros
            for table, key in ((ops, kind), (scopes, scope(node.node_name))):
                table[key][0] += micros
                table[key][1] += 1
    return {'ops': _sorted(ops, total), 'scopes': _sorted(scopes, total), 'op_seconds': total / 1e6}


def scope(name):
    """Return the first three scopes of an operation's name: a/b_3/b/c/x -> a/b/c.

    Each occurs once, and without its number.
    """
    parts = [re.sub(r'_\d+$', '', part) for part in name.split('/')[:-1]]
    return ('/'.join([part for part in dict.fromkeys(parts) if part][:3])
            or re.sub(r'_\d+$', '', name))


def _sorted(table, total):
    return sorted(((key, micros / max(total, 1), calls) for key, (micros, calls) in table.items()),
                  key=lambda entry: -entry[1])
