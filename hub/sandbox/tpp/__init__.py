"""The sample TPP: an independent client of the Hub, written with httpx and joserfc; nothing of the Hub's own code."""

from hub.sandbox.tpp.callback import Callback, read_callback, serve_callbacks
from hub.sandbox.tpp.client import Tpp
from hub.sandbox.tpp.consent import data_sharing_consent
from hub.sandbox.tpp.exchange import Answer, Ask, Exchange, Refused, Wire
from hub.sandbox.tpp.identity import Identity
from hub.sandbox.tpp.oauth import Discovery, Pushed, Tokens

__all__ = [
    "Answer",
    "Ask",
    "Callback",
    "Discovery",
    "Exchange",
    "Identity",
    "Pushed",
    "Refused",
    "Tokens",
    "Tpp",
    "Wire",
    "data_sharing_consent",
    "read_callback",
    "serve_callbacks",
]
