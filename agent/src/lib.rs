//! Caracal's node agent as a library, so that its programs and the tests share one implementation.
