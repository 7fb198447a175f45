//! End-to-end tests on real pods.
