"""The comparison finds what it is there for. `python3 -m unittest` in this folder."""
import dataclasses
import pathlib
import random
import re
import struct
import types
import unittest
import unittest.mock

import chaos
import compare
import faults
import overload
import probe
import records
import report
import tables

KEY = ("t", "a")
MESSAGE = records.Message("t", "c", "s", "a", "hello")
EXPECTED = {KEY: ("c", "s", "hello")}
LOG = {0: [(7, MESSAGE)]}
VERDICT = records.Verdict(MESSAGE, 0, 7, 1, 100)
STORES = {"lake": [(KEY, 100)]}


def found(expected=EXPECTED, optional=(), log=LOG, verdicts=None, stores=STORES):
    verdicts = {0: [VERDICT]} if verdicts is None else verdicts
    return [what for what, _ in compare.compare(expected, set(optional), log, verdicts, stores)]


class Compare(unittest.TestCase):
    def test_what_is_whole_is_whole(self):
        self.assertEqual(found(), [])

    def test_a_missing_message_verdict_or_row_is_found(self):
        self.assertIn("acknowledged, not in weir.messages", found(log={}))
        self.assertIn("0 effective verdicts", found(verdicts={}))
        self.assertIn("0 rows in lake", found(stores={"lake": []}))

    def test_a_doubled_row_is_found(self):
        self.assertEqual(found(stores={"lake": [(KEY, 100)] * 2}), ["2 rows in lake"])

    def test_a_changed_verdict_is_found(self):
        self.assertEqual(found(stores={"lake": [(KEY, 101)]}), ["another verdict in lake than in weir.verdicts"])

    def test_another_text_than_the_acknowledged_is_found(self):
        self.assertEqual(found(expected={KEY: ("c", "s", "other")}),
                         ["in weir.messages, but not what was acknowledged", "judged, but not what was acknowledged"])

    def test_a_verdict_that_comes_late_does_not_count_and_a_second_one_does(self):
        late = records.Verdict(MESSAGE, 0, 7, 1, 200)
        self.assertEqual(found(verdicts={0: [VERDICT, late]}), [])
        second = records.Verdict(MESSAGE, 0, 8, 1, 200)
        self.assertEqual(found(verdicts={0: [VERDICT, second]}), ["2 effective verdicts"])

    def test_an_answer_with_another_verdict_is_found(self):
        self.assertEqual(compare.answered({KEY: {100}}, {0: [VERDICT]}), [])
        self.assertEqual(len(compare.answered({KEY: {100, 101}}, {0: [VERDICT]})), 1)
        self.assertEqual(len(compare.answered({KEY: {101}}, {0: [VERDICT]})), 1)

    def test_the_first_verdict_of_a_source_offset_counts_however_late_another_comes(self):
        other = records.Message("t", "c", "s", "b", "x")
        verdicts = {0: [VERDICT, records.Verdict(other, 0, 8, 1, 150), records.Verdict(MESSAGE, 0, 7, 2, 200)]}
        self.assertEqual(compare.effective(verdicts)[KEY], [VERDICT])
        self.assertEqual(compare.repeats(verdicts), 1)
        whole = {"expected": EXPECTED | {("t", "b"): ("c", "s", "x")}, "log": {0: [*LOG[0], (8, other)]}, "verdicts": verdicts}
        self.assertEqual(found(stores={"lake": [(KEY, 100), (("t", "b"), 150)]}, **whole), [])
        self.assertEqual(found(stores={"lake": [(KEY, 200), (("t", "b"), 150)]}, **whole),
                         ["another verdict in lake than in weir.verdicts"])

    def test_what_is_in_the_log_without_an_answer_must_be_whole_and_what_is_not_must_be_nowhere(self):
        unclear = {KEY: EXPECTED[KEY], ("t", "b"): ("c", "s", "x")}
        certain = compare.certain({}, unclear, LOG)
        self.assertEqual(certain, EXPECTED)
        self.assertEqual(found(expected=certain), [])
        self.assertEqual(found(expected=certain, verdicts={}, stores={"lake": []}), ["0 effective verdicts", "0 rows in lake"])
        self.assertEqual(compare.certain({}, unclear, {}), {})

    def test_what_was_sent_without_an_id_is_found_under_the_one_it_was_given(self):
        value = ("c", "s", "said once (?1)")
        unclear = {("t", "?1"): value, ("t", "?2"): ("c", "s", "said once (?2)"), ("u", "?1"): value}
        message = records.Message("t", "c", "s", "made", value[2])
        log = {0: [(8, message)]}
        self.assertEqual(compare.certain({}, unclear, log), {("t", "made"): value})
        self.assertEqual(compare.certain({("t", "made"): value}, {}, log), {("t", "made"): value})
        # Twice, under two ids, is never right: it was sent once.
        log[0].append((9, dataclasses.replace(message, id="again")))
        wrong = found(expected=compare.certain({}, unclear, log), log=log, verdicts={0: [records.Verdict(row, 0, at, 1, 100) for at, row in log[0]]})
        self.assertIn("judged, never sent", wrong)

    def test_another_text_under_the_id_in_another_partition_counts_only_if_it_is_judged(self):
        other = records.Message("t", "d", "s", "a", "no")
        log = {0: [(3, other)], 1: [(7, MESSAGE)]}
        self.assertEqual(found(log=log), [])
        self.assertEqual(found(log=log, verdicts={0: [records.Verdict(other, 0, 3, 1, 100)]}), ["judged, but not what was acknowledged"])

    def test_a_list_by_sender_shows_what_has_one(self):
        self.assertEqual(found(stores={"history by sender": []}), ["0 rows in history by sender"])
        nobody = records.Message("t", "c", "", "a", "hello")
        whole = {"expected": {KEY: ("c", "", "hello")}, "log": {0: [(7, nobody)]}, "verdicts": {0: [records.Verdict(nobody, 0, 7, 1, 100)]}}
        self.assertEqual(found(stores={"history by sender": []}, **whole), [])
        self.assertEqual(found(stores={"history by sender": [(KEY, 100)]}, **whole),
                         ["1 rows in history by sender of what was not acknowledged"])

    def test_what_nobody_sent_is_found_and_what_may_have_been_sent_is_not(self):
        self.assertEqual(found(expected={}), ["1 rows in lake of what was not acknowledged", "judged, never sent"])
        self.assertEqual(found(expected={}, optional=[KEY]), [])

    def test_a_message_before_its_predecessor_is_found(self):
        log = {0: [(1, records.Message("t", "c", "s", "b", "x")), (2, MESSAGE)]}
        self.assertEqual(compare.out_of_order({("t", "c"): ["b", "a"]}, log), [])
        self.assertEqual(len(compare.out_of_order({("t", "c"): ["a", "b"]}, log)), 1)

    def test_dead_letters_are_neither_missing_nor_more(self):
        letter = records.DeadLetter("process", "malformed_record", "weir.messages", 0, 3)
        place = ("process", "malformed_record", "weir.messages", 0, 3)
        self.assertEqual(compare.dead_letters([letter, letter], {place}), [])
        self.assertEqual(len(compare.dead_letters([], {place})), 1)
        self.assertEqual(len(compare.dead_letters([letter], set())), 1)


class Records(unittest.TestCase):
    def test_a_record_reads_as_it_was_written(self):
        data = records.new_message("t", "c", "a", "héllo", 1 << 50, schema=2, more=[(99, "later")])
        self.assertEqual(records.message(data), records.Message("t", "c", "", "a", "héllo"))

    def test_another_verdict_differs_in_action_scores_and_time_only(self):
        message = records.new_message("t", "c", "a", "hello", 1 << 50)
        verdict = records.encode([(1, 4), (3, struct.pack("<2f", 0.25, 1)), (5, "en"), (8, 100)])
        data = records.encode([(1, 1), (2, message), (3, verdict), (4, 0), (5, 7)])
        first, other = records.verdict(data), records.verdict(records.another_verdict(data, 200))
        self.assertEqual(other, dataclasses.replace(first, action=1, judged_at=200))
        held = records.fields(records.fields(records.another_verdict(data, 200))[3])
        self.assertEqual((struct.unpack("<2f", held[3]), held[5]), ((0.75, 0), b"en"))


class Tables(unittest.TestCase):
    def wrong(self, expected=EXPECTED, **changed):
        held = {"sources": [("t", "a", (0, 7))], "messages": [("t", "a", b"", "hello")],
                "channel_messages": [("t", "c", 20_000, -1, 0, 7, "a")], "sender_messages": [("t", "s", 20_000, 61, 0, 7, "a")],
                "list_days": [("channel", "t", "c", 20_000), ("sender", "t", "s", 20_000)],
                "list_minutes": [("sender", "t", "s", 20_000, 61)], "fences": [(0, 7)]}
        return [what for what, _ in tables.wrong(held | changed, expected, {KEY: [VERDICT]})]

    def test_what_is_whole_is_whole(self):
        self.assertEqual(self.wrong(), [])

    def test_what_differs_in_a_table_is_found(self):
        self.assertEqual(self.wrong(sources=[("t", "a", (0, 8))]), ["another source in table sources than in weir.verdicts"])
        self.assertEqual(self.wrong(messages=[("t", "a", b"", None)]), ["another text in table messages"])
        self.assertEqual(self.wrong(channel_messages=[("t", "d", 20_000, -1, 1, 7, "a")]),
                         ["another channel in table channel_messages", "another source in table channel_messages than in weir.verdicts",
                          "a day of table channel_messages that table list_days does not have"])

    def test_what_the_index_lacks_is_found(self):
        self.assertEqual(self.wrong(list_days=[]), [f"a day of table {kind}_messages that table list_days does not have"
                                                    for kind in ("channel", "sender")])
        self.assertEqual(self.wrong(list_minutes=[]), ["a minute of table sender_messages that table list_minutes does not have"])

    def test_a_fence_lies_behind_what_was_acknowledged_and_before_what_was_not_judged(self):
        self.assertEqual(self.wrong(fences=[]), ["fence at None, and not from 7 to 7"])
        self.assertEqual(self.wrong(fences=[(0, 8)]), ["fence at 8, and not from 7 to 7"])
        self.assertEqual(self.wrong(expected={}, fences=[(0, 6)]), [])


class Memory(unittest.TestCase):
    def test_what_a_waiting_process_may_grow_by_is_bounded(self):
        self.assertEqual(faults.grown({"p": 100, "q": 0}, {"p": 182, "q": 500}), [])
        self.assertEqual(faults.grown({"p": 100}, {"p": 183}), ["p 183 MiB, 100 before"])


class Counts(unittest.TestCase):
    def test_a_row_too_many_is_told_and_what_is_away_is_not(self):
        told, answers = [], [(503, {}, b""), (200, {}, b'{"rows": [[7, 7]]}'), (200, {}, b'{"rows": [[8, 7]]}'), (500, {}, b"")]
        process, counts = types.SimpleNamespace(name="query-1", address=""), probe.Counts(None, {}, told.extend)
        with unittest.mock.patch("cluster.ask", side_effect=answers):
            for _ in answers:
                counts.ask(process, "t", "")
        self.assertEqual([what for what, _ in told], ["SQL of query-1 counts 8 rows of 7 messages", "SQL of query-1 answers 500"])


class Plan(unittest.TestCase):
    def test_copies_are_made_of_a_weir_at_work_and_at_the_end(self):
        options = types.SimpleNamespace(seed=7, rate=1, short=False, only=None, repeat=1)
        run = types.SimpleNamespace(options=options, kind="embedded", left_out={}, random=random.Random("7 embedded"))
        plan = chaos.Run.faults(run)
        self.assertEqual([at for at, fault in enumerate(plan) if fault is faults.backup], [len(plan) // 2 - 1, len(plan) - 1])


class Waits(unittest.TestCase):
    def test_a_probe_that_still_waits_counts_with_its_age(self):
        self.assertEqual(probe.longest([(0, 5), (8, 3)], [], since=10, now=20), 3)
        self.assertEqual(probe.longest([(0, 5), (8, 3)], [9], since=10, now=20), 11)
        self.assertEqual(probe.longest([], [], since=10, now=20), 0)

    def test_each_partition_gets_one_channel(self):
        self.assertEqual(probe.one_each({"a": 1, "b": 0, "c": 1, "d": 2}), ["b", "a", "d"])


class Overload(unittest.TestCase):
    CALM = [0.01] * 500

    def test_what_stays_within_its_bounds_is_not_told(self):
        self.assertEqual(overload.bounds({"p": 100}, {"p": 119}, self.CALM, [0.03] * 500), [])

    def test_memory_and_time_over_their_bounds_are(self):
        self.assertEqual(overload.bounds({"p": 100, "q": 50}, {"p": 100, "q": 75}, self.CALM, self.CALM),
                         ["memory of q 1.50 times its usual, over the bound of 1.2"])
        self.assertEqual(overload.bounds({}, {}, self.CALM, self.CALM[:480] + [0.04] * 20),
                         ["p99 of accepted requests 4.0 times its usual, over the bound of 3"])

    def test_a_few_requests_have_no_p99(self):
        self.assertEqual(len(overload.bounds({}, {}, self.CALM, [9] * 10)), 1)


class Report(unittest.TestCase):
    def lines(self, *kinds):
        # Many of another kind must not hide it.
        return report.violations([("0 rows in SQL", ("t", str(number))) for number in range(99)] + [(kind, KEY) for kind in kinds])

    def test_prove_finds_what_its_patches_cause_and_nothing_else(self):
        prove = (pathlib.Path(__file__).parent / "prove").read_text()
        kinds = dict(re.findall(r"\[([a-z-]+)\]='(.*)'", prove))
        caused = {"early-ack": "acknowledged, not in weir.messages", "no-fence": "2 rows in lake",
                  "no-history-fence": "another verdict in history by channel than in weir.verdicts"}
        self.assertEqual(kinds.keys(), caused.keys())
        for patch, kind in caused.items():
            seen = lambda *kinds: [line for line in self.lines(*kinds) if re.search(wanted, line)]
            wanted = kinds[patch]
            self.assertEqual(len(seen(kind)), 1, patch)
            self.assertEqual(seen("0 rows in lake", "1 rows in lake of what was not acknowledged"), [])
            self.assertEqual(seen(*(other for other in caused.values() if other != kind)), [])


if __name__ == "__main__":
    unittest.main()
