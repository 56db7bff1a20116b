"""What a variant saves: instances per card, money per answer, and the choice at a user's limits."""
