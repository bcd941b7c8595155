"""OpenAPI documents and route tables, compiled into plain functions."""
