//! The routing information bases. Pure.
