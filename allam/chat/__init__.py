"""Chat templates and the encoding of conversations with their assistant mask."""
