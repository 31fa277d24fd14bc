//! The real pass, with the real SDK, against the testbed in process.

mod bench;
mod binary;
mod commit;
mod everyday;
mod faults;
mod matrix;
mod network;
mod pieces;
mod readme;
mod sources;
mod sso;
mod stage;
mod time;
