"""Do runs differ, and by how much? See docs/COMPARING.md."""
