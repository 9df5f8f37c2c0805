"""Turns a raw message into the text the tokenizer sees.

Training and serving must agree to the letter: the rules are in ../README.md ("Normalisation"),
the contract is ../normalise_vectors.jsonl. Only ASCII letters and digits are treated specially,
so that two implementations with different Unicode tables still agree.
"""
import pathlib
import re
import unicodedata

EMOJI_TABLE = pathlib.Path(__file__).resolve().parent.parent / "emoji.tsv"
LEET = {"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s", "!": "i"}

URL = re.compile(r"(?i)https?://[^ ]+|\bwww\.[^ ]+", re.ASCII)
MENTION = re.compile(r"(^|[^A-Za-z0-9_])@[A-Za-z0-9_]+")
REPEAT = re.compile(r"(.)\1{3,}", re.DOTALL)
# One mapped character, or the same one twice, with a letter directly on both sides.
LEET_RUN = re.compile(r"(?<=[A-Za-z])(?:([013457@$!])\1?)(?=[A-Za-z])")


def load_emoji(path=EMOJI_TABLE):
    """emoji -> name, from a UTF-8 file of `emoji TAB name` lines (a name may be empty)."""
    with open(path, encoding="utf-8") as lines:
        return dict(line.rstrip("\n").split("\t") for line in lines)


def _matcher(table):
    longest_first = sorted(table, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)))


_TABLE = load_emoji()
_EMOJI = _matcher(_TABLE)


def _clean(char):
    """'' for a character to drop, ' ' for white space and controls, else the character."""
    code = ord(char)
    if 0x20 < code < 0x7F:
        return char
    if 0xFE00 <= code <= 0xFE0F or 0xE0100 <= code <= 0xE01EF:
        return ""
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    return char


def normalise(text):
    """Returns the normalised text; may be empty. Idempotence is not promised."""
    if not text.isascii():  # every emoji sequence holds a character beyond ASCII
        text = _EMOJI.sub(lambda m: f" {_TABLE[m.group()]} ", text)
        text = unicodedata.normalize("NFKC", text)
    text = re.sub(" +", " ", "".join(map(_clean, text))).strip(" ")
    text = URL.sub("http", text)
    text = MENTION.sub(r"\1@user", text)
    text = REPEAT.sub(r"\1\1\1", text)
    return LEET_RUN.sub(lambda m: LEET[m.group(1)] * len(m.group()), text)
