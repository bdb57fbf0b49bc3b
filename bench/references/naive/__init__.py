"""The tunnel of an evening, thirty lines a part: the floor."""
