"""What both agents are made of: their legs, tokens, settings and metrics."""
