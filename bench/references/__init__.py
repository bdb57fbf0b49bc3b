"""Programs that are measured against; they run by themselves, in virtual environments of their own."""
