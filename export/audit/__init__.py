"""Reads finished files back and says what is really in them; `python -m export.audit FILE`. Needs no torch.

Files are judged by their contents, not by the flags they were made with.
"""

from export.audit.audit import Audit, audit_file, audit_tflite
from export.audit.tflite import operator_name

__all__ = ["Audit", "audit_file", "audit_tflite", "operator_name"]
