"""An existing student as a stage of a pipeline, such as a teacher of the zoo: `python -m compress.adopt t.pt --out copy.pt`."""

from pathlib import Path

from compress.checkpoint import load_student
from compress.cli import command_line
from compress.files import written_atomically


def main(student: Path, *, out: Path) -> None:
    """Copies a student.pt, after checking that it is one.

    Args:
        student: the file to copy.
        out: where to.
    """
    load_student(student)
    with written_atomically(out) as part:
        part.write_bytes(student.read_bytes())
    print(f"wrote {out}: a copy of {student.name}")


if __name__ == "__main__":
    command_line(main)
