"""The contract: OpenAPI facts and route tables, compiled to plain functions."""

from hub.contract.contract import Contract, load_contract
from hub.contract.mapper import Mapper
from hub.contract.shape import Context
from hub.contract.tables import plain_id
from hub.contract.validators import Violation

__all__ = ["Context", "Contract", "Mapper", "Violation", "load_contract", "plain_id"]
