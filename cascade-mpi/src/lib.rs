//! Cascade: cascade-mpi.
