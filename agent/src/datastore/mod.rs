//! Where the resources come from.
