//! The host manager.
