"""The parity gate: do exported files compute what the trained student computes? `python -m runtime.parity student.pt FILE...`"""
