//! Joins S3 server access logs into one object per period, exactly once.
//!
//! The map of the modules; data flows down it, and a file imports only what stands above it here.

pub mod source;

pub mod period;

pub mod key;

pub mod layout;

pub mod plan;

pub mod config;
