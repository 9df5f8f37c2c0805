"""What a run was and what it found, as Markdown."""
import collections
import time

import faults

# Kinds of violations, and single ones, that are shown.
KINDS, FIRST = 40, 20


def violations(found):
    """How often each kind was found, and the first ones. `prove` looks for kinds in these lines."""
    often = collections.Counter(what for what, _ in found)
    first = {}
    for what, key in found:
        first.setdefault(what, key)
    lines = ["| violation | times | the first |", "|---|---|---|"]
    lines += [f"| {what} | {number} | {first[what]} |" for what, number in often.most_common(KINDS)]
    if len(often) > KINDS:
        lines += [f"| {len(often) - KINDS} other kinds | | |"]
    return lines + ["", "First violations:", ""] + [f"- {what}: {key}" for what, key in found[:FIRST]]


def report(options, runs, failed):
    """Markdown, without a text, a path or a name of this machine."""
    lines = ["# Broken on purpose", "", f"{time.strftime('%Y-%m-%d')}, seed {options.seed}, {options.rate} messages a second. The command:", "",
             "```sh", f"compose/chaos/run {' '.join(options.said)}", "```", ""]
    for run in runs:
        lines += [f"## {'Roles on Apache Kafka and Cassandra' if run.kind == 'real' else 'weir up, embedded'}", ""]
        number = len(run.violations)
        held = "Held" if not number else f"{number} violation{'s' if number > 1 else ''}"
        lines += [f"**{held}.** " +
                  ", ".join(f"{value:,} {name}" for name, value in run.counts.items()) + "." if hasattr(run, "counts") else "**Not compared.**", ""]
        lines += ["| broken | rounds | whole again after, at most | longest wait for a verdict |", "|---|---|---|---|"]
        for name, rounds in sorted(run.rounds.items()):
            mended = [seconds for fault, _, seconds, _ in run.events if fault == name]
            waits = [seconds for fault, _, _, seconds in run.events if fault == name]
            shown = [f"{max(some):.1f} s" if some else "" for some in (mended, waits)]
            lines.append(f"| {getattr(faults, name).__doc__} | {rounds} | {' | '.join(shown)} |")
        waits = sorted(seconds for _, seconds in run.probers.waits()) if hasattr(run, "probers") else []
        if waits:
            lines += ["", f"Message to verdict, all of the run and every partition: p50 {waits[len(waits) // 2] * 1e3:.0f} ms, p99 {waits[int(len(waits) * .99)]:.1f} s, "
                      f"at most {waits[-1]:.1f} s. Longest time without an acknowledgement {run.ledger.longest_silence:.1f} s. "
                      f"Settled {getattr(run, 'settled', 0):.0f} s after the last message."]
        lines += ["", "Answers: " + ", ".join(f"{status}: {number:,}" for status, number in sorted(run.ledger.answers.items(), key=str)) + ".", ""]
        if hasattr(run, "sql"):
            lines += ["SQL, asked meanwhile whether anything is there twice: " +
                      ", ".join(f"{status}: {number:,}" for status, number in sorted(run.sql.answers.items(), key=str)) + ".", ""]
        if run.ledger.conflicts:
            lines += ["Another text under an id that was taken: " +
                      ", ".join(f"{status}: {number}" for status, number in sorted(run.ledger.conflicts.items(), key=str)) +
                      " (what was accepted became a dead letter).", ""]
        lines += [f"{remark}\n" for remark in run.remarks]
        lines += ["Peak memory: " + ", ".join(f"{p.name} {p.peak_mib:.0f} MiB" for p in run.cluster.processes) + ".", ""]
        lines += [f"Left out: {name}, {why}." for name, why in run.left_out.items()]
        lines += ["", *violations(run.violations)] if run.violations else []
        lines.append("")
    return "\n".join(lines + ([f"Failed: {failed}", ""] if failed else []))
