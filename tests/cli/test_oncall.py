"""What docs/oncall.md shows is what the commands print."""

from pathlib import Path

import transcripts

PAGE = Path(__file__).resolve().parents[2] / "docs" / "oncall.md"


def test_every_transcript_is_true(tmp_path):
    page = PAGE.read_text()
    assert len(transcripts.commands(page)) > 20
    now = transcripts.run(page, str(tmp_path))
    assert transcripts.same(now) == transcripts.same(page), "python tests/transcripts.py docs/oncall.md writes it anew"
    assert "Traceback" not in page
