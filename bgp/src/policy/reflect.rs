//! Route reflection (RFC 4456): who hears what from whom.
