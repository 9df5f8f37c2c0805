"""Writes ../normalise_vectors.jsonl: hand-picked texts, then real ones from GoEmotions (Apache-2.0).

    python vectors.py --data DIR
"""
import argparse
import json
import pathlib
import random

from normalise import normalise

PICKED = [
    "", " ", "hello", "  two   spaces  ", "tab\tand\nnewline\r\nend", "Keep CASE", "no\u00a0break\u2003em\u3000wide",
    "zero\u200bwidth\u200djoin\ufeffbom", "soft\u00adhyphen", "left\u200eright\u200fmarks", "control\x00\x07\x1fchars", "line\u2028para\u2029end",
    "ＦＵＬＬ　ｗｉｄｔｈ", "ﬁne ligature", "x² ½ Ⅳ", "①②③", "e\u0301 composed", "𝕗𝕒𝕟𝕔𝕪 𝓉ℯ𝓍𝓉", "Straße Ünïcödé",
    "😂", "I 😂😂 you", "so good👍🏽👍🏿!", "👨‍👩‍👧‍👦 family", "👩🏽‍💻 codes", "❤️ and ❤ and ♥", "🇫🇷 🇩🇪🇺🇸", "🏴󠁧󠁢󠁥󠁮󠁧󠁿 england", "1️⃣ 2⃣ #️⃣ *️⃣",
    "🏽 alone", "🏳️‍🌈 pride", "half 👨‍ joined", "I would love to 🔪 some 🐍", "©️ ® ™", "😂text😂", "🖕🏻you", "go kill urself 🤡🤡🤡🤡🤡",
    "see https://example.org/a?b=c#d now", "HTTP://EXAMPLE.ORG", "www.example.org and WWW.x.y", "awww.cute", "(https://a.b)", "http://", "https://a.b,c d",
    "ftp://left.alone", "@bob hi", "hi @bob_99!", "(@a)@b", "@a@b", "mail me@example.org", "@ alone", "@é accent", "cc:@x.@y", "_@under",
    "sooooo goooood", "!!!!!!", "aaa", "aaaa", "aAaA", "1000000", "hahahaha", "......", "éééééé", "😂😂😂😂😂",
    "sh1t", "f@ggot", "a$$hole", "b00bs", "pu55y", "d1ck", "5h1t", "n1gg4", "b1tch3s", "f4ggots", "sh!t", "wh0re", "m0r0n", "l0s3r", "a1b2c3d4e", "a10b",
    "2nite", "gr8", "b4", "u2", "mp3", "covid19", "h8 u m8", "3.14 and 1st", "r2d2 c3po", "@us3r_n4me", "k1ll y0ur53lf", "wow!great", "oh! no",
    "www.sh1t.com sh1t", "f\u200bu\u200bc\u200bk", "ｓｈ１ｔ", "f@@ggot", "f@@@ggot", "s$$$s", "é1é", "_1a_", "a!b!c",
]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--data", type=pathlib.Path, required=True)
    here = pathlib.Path(__file__).resolve().parent.parent
    texts = [line.split("\t")[0] for line in open(p.parse_args().data / "goemotions/test.tsv", encoding="utf-8")]
    rng = random.Random(7)
    odd = [t for t in texts if not t.isascii() or any(f"{c}" in t for c in ("http", "@", "!!!!", "0", "1", "3"))]
    real = rng.sample(odd, 120) + rng.sample(texts, 80)
    with open(here / "normalise_vectors.jsonl", "w", encoding="utf-8") as out:
        for text in PICKED + real:
            out.write(json.dumps({"text": text, "normalised": normalise(text)}, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
