"""One meshd: its parts (`parts`) and their life (`run`)."""
