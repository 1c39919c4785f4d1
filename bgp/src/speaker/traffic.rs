//! What came from one peer and went to it, over all its connections. Readers and writers count; who
//! shows it reads, without stopping anyone.

use std::sync::atomic::{AtomicU64, Ordering};

/// Both ways, since the peer was configured.
#[derive(Debug, Default)]
pub struct Traffic {
    pub received: Flow,
    pub sent: Flow,
}

/// One way.
#[derive(Debug, Default)]
pub struct Flow {
    messages: AtomicU64,
    octets: AtomicU64,
}

/// What a flow came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FlowCounts {
    /// BGP messages of every kind, complete ones.
    pub messages: u64,
    /// Of TCP payload.
    pub octets: u64,
}

impl Flow {
    pub fn add(&self, messages: usize, octets: usize) {
        // Numbers to look at: nobody concludes anything from their order.
        self.messages.fetch_add(messages as u64, Ordering::Relaxed);
        self.octets.fetch_add(octets as u64, Ordering::Relaxed);
    }

    pub fn counts(&self) -> FlowCounts {
        FlowCounts {
            messages: self.messages.load(Ordering::Relaxed),
            octets: self.octets.load(Ordering::Relaxed),
        }
    }
}
