//! Which workload has which address.
