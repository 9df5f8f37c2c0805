"""Writes ../emoji.tsv: every emoji sequence and its English name, from the PyPI package `emoji`."""
import pathlib
import re

import emoji

OUT = pathlib.Path(__file__).resolve().parent.parent / "emoji.tsv"
TONE = re.compile(r"[_ ]*(?:medium-light|medium-dark|light|medium|dark)[_ ]skin[_ ]tone")
WANTED = {emoji.STATUS[s] for s in ("component", "fully_qualified", "minimally_qualified", "unqualified")}


def name(sequence, entry):
    """Lower-case words; skin tones dropped (a lone tone has an empty name); flags say so."""
    words = TONE.sub("", entry["en"].strip(":")).replace("_", " ").replace("-", " ")
    words = re.sub(" +", " ", words).strip().lower()
    if all(0x1F1E6 <= ord(c) <= 0x1F1FF for c in sequence):
        words = f"flag {words}"
    return words


def main():
    rows = {s: name(s, e) for s, e in emoji.EMOJI_DATA.items() if e["status"] in WANTED}
    with open(OUT, "w", encoding="utf-8", newline="\n") as out:
        out.writelines(f"{s}\t{rows[s]}\n" for s in sorted(rows))


if __name__ == "__main__":
    main()
