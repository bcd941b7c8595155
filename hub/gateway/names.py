"""Compare the name a payer typed with the name an account has: Latin and Arabic, tolerant of how people write.

Theory. Both names are folded: case, diacritics and Arabic vowel marks fall, Arabic letter forms that writers exchange become
one (alef with or without hamza, alef maqsura and ya, ta marbuta and ha), the definite article and the tatweel go, punctuation
parts words, titles go. What is left are words. The score is the larger of two: how well the words pair off whatever their
order (each word with its most similar partner, by edit distance, weighted by length), and how similar the whole texts are
without spaces (``Abdul Rahman`` and ``Abdulrahman``). A name that lacks some of the other's words is at most partial.
From the score: ``Yes`` at ``YES`` and above, ``Partial`` at ``PARTIAL`` and above, else ``No``.

Source: decisions.md section 4 (the algorithm is published nowhere); routes.md T13.
"""

import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

YES: Final = 0.95
PARTIAL: Final = 0.70
_TITLES: Final = frozenset(
    [
        "mr",
        "mrs",
        "ms",
        "miss",
        "dr",
        "eng",
        "prof",
        "sheikh",
        "sheikha",
        "shaikh",
        "shaikha",
        "hh",
        "he",
        "capt",
        "السيد",
        "السيدة",
        "الدكتور",
        "دكتور",
        "المهندس",
        "الشيخ",
        "الشيخة",
    ]
)
_FORMS: Final = [
    "company",
    "co",
    "llc",
    "llp",
    "ltd",
    "limited",
    "fze",
    "fzco",
    "fzc",
    "pjsc",
    "psc",
    "est",
    "establishment",
    "inc",
    "plc",
]
_ARABIC: Final = str.maketrans("أإآٱىةؤئـ", "ااااي" + "هويـ", "ـ")
_WORDS_MOST: Final = 20
_TEXT_MOST: Final = 140


def fold(name: str) -> tuple[str, ...]:
    """Return the words of a name in the form in which they are compared."""
    text = name[:_TEXT_MOST].translate(_ARABIC)
    text = unicodedata.normalize("NFKD", text).casefold()
    text = "".join(c for c in text if not unicodedata.combining(c))
    words = re.findall(
        r"[^\W_]+", text.replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    )
    bare = [w.removeprefix("ال") if len(w) > 4 else w for w in words]
    titles = {t.translate(_ARABIC).removeprefix("ال") for t in _TITLES} | _TITLES
    kept = [w for w in bare if w not in titles and w not in _FORMS and w not in {"al", "el"}]
    return tuple((kept or bare)[:_WORDS_MOST])


def similarity(one: str, two: str) -> float:
    """Return how alike two names are, 0 to 1."""
    first, second = sorted((fold(one), fold(two)), key=lambda words: (len(words), words))
    if not first or not second:
        return 0.0
    if sorted(first) == sorted(second):
        return 1.0
    joined = _ratio("".join(first), "".join(second))
    paired = _paired(first, second)
    if len(first) != len(second) and joined < YES:
        return min(max(paired, joined), YES - 0.01)
    return max(paired, joined)


def _ratio(one: str, two: str) -> float:
    return SequenceMatcher(None, one, two, autojunk=False).ratio()


def _paired(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Pair the words of the shorter name off with their most similar partners; weigh by length."""
    short, rest = sorted((first, second), key=len)
    left = list(rest)
    score = total = 0.0
    for word in sorted(short, key=len, reverse=True):
        best = max(left, key=lambda other: _ratio(word, other))
        left.remove(best)
        score += _ratio(word, best) * len(word)
        total += len(word)
    lonely = len(rest) - len(short)
    return score / total * (0.9**lonely if lonely else 1.0)


def best_match(given: str, names: Iterable[str]) -> tuple[float, str]:
    """Return the best score of a name against several, and which it was; (0, "") against none."""
    return max(((similarity(given, name), name) for name in names), default=(0.0, ""))


def indicator(score: float, *, yes: float = YES, partial: float = PARTIAL) -> str:
    """Return the standard's word for a score."""
    word = "Yes" if score >= yes else "Partial" if score >= partial else "No"
    return f"ConfirmationOfPayee.{word}"


def masked(name: str) -> str:
    """Return a name of which two letters of each longer word show, one of each shorter, and stars stand for the rest."""
    words = [w for w in name.split() if w][:_WORDS_MOST]
    shown = [
        w[: 2 if len(w) >= 4 else 1] + "*" * (len(w) - (2 if len(w) >= 4 else 1)) for w in words
    ]
    return " ".join(shown)[:140]
