"""Weak labels for what the data sets do not label themselves: swear words, slurs, insults, threats.

The lists are stems and patterns over normalised, lower-cased text. They only make training labels;
serving never looks at them. They are offensive by nature.
"""
import re

_SWEAR = r"""fuck\w*|motherfuck\w*|\w+fucker\w*|fck\w*|fuk|fuking|fk|shit\w*|bullshit\w*|sht|bitch\w*|biatch|btch|asshole\w*|arsehole\w*|
ass|arse|jackass\w*|dumbass\w*|badass|lmfao|wtf|stfu|gtfo|ffs|cunt\w*|dick|dicks|dickhead\w*|cock|cocks|cocksuck\w*|pussy|pussies|
whore\w*|slut\w*|bastard\w*|damn\w*|goddamn\w*|crap\w*|piss\w*|twat\w*|wank\w*|prick|pricks|douche\w*|hoe|hoes|tits|bollocks|bugger|
cum|jizz|dildo\w*|puta|mierda"""
_SLUR = r"""nigg\w*|negro\w*|fag|fags|fagg\w*|kike\w*|spic|spics|chink\w*|gook\w*|wetback\w*|raghead\w*|towelhead\w*|tranny|trannies|
dyke\w*|paki|pakis|retard\w*|coon|coons|beaner\w*|muzzie\w*|mudslime\w*|sandnigg\w*|gypp\w*|shemale\w*|cracker|crackers|libtard\w*"""
_INSULT = r"""idiot\w*|moron\w*|stupid\w*|dumb\w*|imbecile\w*|loser\w*|pathetic|fool|fools|foolish|ignorant|ignoramus|clown|clowns|scum\w*|
trash|garbage|noob\w*|nub|nubs|nob|nobs|retard\w*|asshole\w*|bitch\w*|cunt\w*|bastard\w*|dumbass\w*|dickhead\w*|dick|prick|jerk\w*|
jackass\w*|coward\w*|hypocrite\w*|liar|liars|fag\w*|whore\w*|slut\w*|ugly|fat|worthless|useless|disgusting|pig|pigs|cancer|
twat\w*|wanker\w*|douche\w*|motherfuck\w*|hoe|hoes|crazy|insane|nuts|racist|racists|bigot\w*|braindead|brainless"""
_THREAT = r"""(?:kill|hang|shoot|murder|rape|stab|burn|beat|gas|lynch|behead|execute|slaughter|exterminate|hurt|punch|destroy|choke|drown) (?:you|u|ya|them|him|her|those|these|all|every|the|ur|your)\b|
kill (?:your|ur|my|him|her)self|\bkys\b|(?:hope|wish) (?:you|u|they|he|she|ur|your)\b.{0,24}\b(?:die|dies|dead|cancer|killed|raped)|
(?:should|must|need to|deserve to|ought to) (?:be (?:shot|hanged|hung|killed|raped|beaten|gassed|lynched|executed|burned)|die|hang|burn)|
\bgo die\b|\bdie (?:bitch|you|slow\w*|in a)|(?:i will|i'll|ill|gonna|going to|will) (?:find|kill|hunt|rape|shoot|beat|hurt) (?:you|u|him|her|them|ur|your)"""


def _words(alternatives):
    return re.compile(r"\b(?:" + alternatives.replace("\n", "") + r")\b")


SLUR = _words(_SLUR)
PROFANITY = _words(_SWEAR.replace("\n", "") + "|" + _SLUR)
INSULT = _words(_INSULT)
THREAT = re.compile(_THREAT.replace("\n", ""))
