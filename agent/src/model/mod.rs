//! The resources and what they mean together. Pure.
