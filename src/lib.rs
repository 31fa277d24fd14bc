//! Joins S3 server access logs into one object per period, exactly once.
//!
//! The map of the modules; data flows down it, and a file imports only what stands above it here (but for
//! `error`, which names every module's failures and is returned by all that can end a pass).

pub mod shown;

pub mod source;

pub mod period;

pub mod key;

pub mod layout;

pub mod plan;

pub mod config;

pub mod manifest;

pub mod parts;

pub mod protocol;

pub mod limit;

pub mod pace;

pub mod store;

pub mod fetch;

pub mod report;

pub mod rollup;

pub mod error;

pub mod probe;

pub mod pass;

pub mod check;

pub mod telemetry;
