"""The comparison finds what it is there for. `python3 -m unittest` in this folder."""
import unittest

import compare
import records

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
        self.assertEqual(found(expected={KEY: ("c", "s", "other")}), ["in weir.messages, but not what was acknowledged"])

    def test_a_verdict_that_comes_late_does_not_count_and_a_second_one_does(self):
        late = records.Verdict(MESSAGE, 0, 7, 1, 200)
        self.assertEqual(found(verdicts={0: [VERDICT, late]}), [])
        second = records.Verdict(MESSAGE, 0, 8, 1, 200)
        self.assertEqual(found(verdicts={0: [VERDICT, second]}), ["2 effective verdicts"])

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


if __name__ == "__main__":
    unittest.main()
