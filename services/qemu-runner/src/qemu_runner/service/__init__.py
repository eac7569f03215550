"""What the runner does: machines made, started, watched, ended, found again; and what its host is like."""
