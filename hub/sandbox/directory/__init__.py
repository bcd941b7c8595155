"""The sandbox's Trust Framework in small: participants, key store, software statements, PKI (trust-framework.md 10)."""

from hub.sandbox.directory.acts import ActError, Acts
from hub.sandbox.directory.directory import Directory
from hub.sandbox.directory.page import directory_page
from hub.sandbox.directory.register import ApiResource
from hub.sandbox.directory.registrar import DIRECTORY_ID

__all__ = ["DIRECTORY_ID", "ActError", "Acts", "ApiResource", "Directory", "directory_page"]
