//! The speaker on tokio: sockets and tasks around the pure parts.
