"""Plans beside what runs hold."""
