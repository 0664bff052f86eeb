"""Dense and sparse linear algebra of the method; a tensor in, a tensor out."""
