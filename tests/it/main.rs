//! The real pass, with the real SDK, against the testbed in process.

mod bench;
mod binary;
mod commit;
mod endless;
mod everyday;
mod faults;
mod hostile;
mod leftovers;
mod matrix;
mod network;
mod pieces;
mod readme;
mod secrets;
mod sources;
mod sso;
mod stage;
mod time;
