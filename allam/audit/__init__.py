"""What people ask of a corpus after the fact, read from the artifacts on disk: what was dropped, under which licences, where a document went."""
