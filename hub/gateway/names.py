"""Compare the name a payer typed with the name an account has: Latin and Arabic, tolerant of how people write.

Theory. Both names are folded: case, diacritics and Arabic vowel marks fall, Arabic letter forms that writers exchange become
one (alef with or without hamza, alef maqsura and ya, ta marbuta and ha, the Persian kaf, ya and ha, letters in the forms that old
systems print), the definite article and the tatweel go, punctuation
parts words, titles go. What is left are words. The score is the larger of two: how well the words pair off whatever their
order (each word with its most similar partner, by edit distance, weighted by length), and how similar the whole texts are
without spaces, with their articles or without (``Abdul Rahman`` and ``Abdulrahman``). A name that lacks some of the other's words
is at most partial.
From the score: ``Yes`` at ``yes`` and above, ``Partial`` at ``partial`` and above, else ``No``; a tenant may set both
(``switches.payee_yes``, ``switches.payee_partial``).

Source: decisions.md section 4 (the algorithm is published nowhere); routes.md T13.
"""

import re
import unicodedata
from collections.abc import Iterable
from difflib import SequenceMatcher
from typing import Final

import msgspec

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
_ARABIC: Final = str.maketrans(
    "\u0671\u0649\u06cc\u0629\u06c1\u06c3\u06a9",
    "\u0627\u064a\u064a\u0647\u0647\u0647\u0643",
    "\u0640",
)
"""Letters that writers exchange: alef wasla; alef maqsura, Persian ya; ta marbuta, goal ha; Persian kaf. The tatweel goes."""
_ARTICLE: Final = "\u0627\u0644"
_ARTICLES: Final = frozenset({"al", "el"})
_WORDS_MOST: Final = 20
_TEXT_MOST: Final = 140
_NAMES_MOST: Final = 64


def _plain(text: str) -> str:
    """Return a text without case, diacritics and forms of letters; no longer than a name may be, however it was written."""
    text = unicodedata.normalize("NFKD", text[:_TEXT_MOST]).casefold()
    letters = "".join(c for c in text if not unicodedata.combining(c))
    return letters.translate(_ARABIC)[:_TEXT_MOST]


def _bare(word: str) -> str:
    """Return a word without its article."""
    return word.removeprefix(_ARTICLE) if len(word) > 4 else word


_DROPPED: Final = frozenset({*map(_bare, map(_plain, _TITLES)), *_FORMS})


class Folded(msgspec.Struct, frozen=True):
    """Hold a name as it is compared: its words without articles, and the whole of it with them, without spaces."""

    words: tuple[str, ...]
    whole: str


def fold(name: str) -> Folded:
    """Return a name in the form in which it is compared."""
    text = _plain(name).replace("'", "").replace("\N{RIGHT SINGLE QUOTATION MARK}", "")
    words = re.findall(r"[^\W_]+", text)
    named = [w for w in words if _bare(w) not in _DROPPED]
    kept = [b for b in map(_bare, named) if b not in _ARTICLES]
    shown = (kept or [_bare(w) for w in words])[:_WORDS_MOST]
    return Folded(tuple(shown), "".join(named or words))


def similarity(one: str, two: str, *, yes: float = YES) -> float:
    """Return how alike two names are, 0 to 1; ``yes`` is the score that one which lacks words stays below."""
    return _alike(fold(one), fold(two), yes)


def _alike(one: Folded, two: Folded, yes: float) -> float:
    first, second = sorted((one.words, two.words), key=lambda words: (len(words), words))
    if not first or not second:
        return 0.0
    if sorted(first) == sorted(second):
        return 1.0
    bare, whole = ("".join(first), "".join(second)), sorted((one.whole, two.whole))
    joined = _ratio(*bare)
    if joined < yes and whole != sorted(bare):
        joined = max(joined, _ratio(*whole))
    paired = _paired(first, second)
    if len(first) != len(second) and joined < yes:
        return min(max(paired, joined), yes - 0.01)
    return max(paired, joined)


def _ratio(one: str, two: str) -> float:
    return 1.0 if one == two else SequenceMatcher(None, one, two, autojunk=False).ratio()


def _paired(first: tuple[str, ...], second: tuple[str, ...]) -> float:
    """Pair the words of the shorter name off with their most similar partners; weigh by length."""
    short, rest = sorted((first, second), key=len)
    left = list(rest)
    score = total = 0.0
    for word in sorted(short, key=len, reverse=True):
        likeness, at = max((_ratio(word, other), -at) for at, other in enumerate(left))
        del left[-at]
        score += likeness * len(word)
        total += len(word)
    lonely = len(rest) - len(short)
    return score / total * (0.9**lonely if lonely else 1.0)


def best_match(given: str, names: Iterable[str], *, yes: float = YES) -> tuple[float, str]:
    """Return the best score of a name against several, and which it was; (0, "") against none.

    Of names that are told in many ways the first ``_NAMES_MOST`` are compared: an account has not so many holders.
    """
    folded: dict[Folded, str] = {}
    for name in names:
        if len(folded) < _NAMES_MOST:
            folded.setdefault(fold(name), name)
    asked = fold(given)
    scores = ((_alike(asked, one, yes), name) for one, name in folded.items())
    return max(scores, default=(0.0, ""))


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
