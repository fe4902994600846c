"""Pictures and pages that show captions and attention."""
