"""What a cluster must be before a long run: `allam preflight` measures it on the ranks that training would have, and names the node that is slow."""
