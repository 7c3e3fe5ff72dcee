//! Virtual device sets.
