//! Owns the speaker: its best routes become learned routes, its configuration follows the store.
