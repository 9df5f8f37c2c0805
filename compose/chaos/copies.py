"""Copies of a Weir that is at work, and the Weirs that are made of them."""
import collections
import copy
import dataclasses
import pathlib
import subprocess

import cluster
import load


@dataclasses.dataclass
class Copy:
    folder: pathlib.Path
    # What was acknowledged, and what had been placed, before the copy was begun: it must be in it.
    acknowledged: dict
    dead: set
    refused: set


def backup(run):
    """a copy made of it at work; at the end, the Weir that is restored from it"""
    made = Copy(run.folder / f"copy-{run.rounds['backup']}", dict(run.ledger.acknowledged), set(run.dead), set(run.refused))
    subprocess.run([run.cluster.weir, "backup", "--data", run.cluster.data, "--to", made.folder], env=run.cluster.env, check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    run.copies.append(made)


def compare(run, made):
    """Restores it, lets it settle, and compares every store with what was acknowledged before the copy.
    What was acknowledged later may be there."""
    data = made.folder.with_name(made.folder.name + "-restored")
    subprocess.run([run.cluster.weir, "restore", made.folder, "--data", data], env=run.cluster.env, check=True,
                   stdout=subprocess.DEVNULL, timeout=300)
    again = copy.copy(run)
    again.suffix, again.sent_for, again.looked = f", restored from {made.folder.name}", 0, 0
    again.dead, again.refused = made.dead, made.refused
    again.ledger = load.Ledger()
    again.ledger.acknowledged = made.acknowledged
    again.ledger.unclear = run.ledger.unclear | {key: value for key, value in run.ledger.acknowledged.items() if key not in made.acknowledged}
    again.ledger.order = collections.defaultdict(list, {
        (tenant, channel): [id for id in ids if (tenant, id) in made.acknowledged] for (tenant, channel), ids in run.ledger.order.items()})
    again.cluster = cluster.Embedded(run.options.weir, made.folder.with_name(data.name + "-logs"), data)
    before = len(run.violations)
    try:
        again.settle()
        again.compare()
    finally:
        again.cluster.close()
    run.remarks.append(f"Restored from {made.folder.name}: {len(made.acknowledged):,} messages acknowledged before it was begun, "
                       f"{again.counts['records in weir.messages']:,} records in weir.messages, "
                       f"{len(run.violations) - before} violations.")
