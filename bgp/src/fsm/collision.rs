//! Two connections to one peer: which one stays (RFC 4271 §6.8).
