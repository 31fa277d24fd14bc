//! The real pass, with the real SDK, against the testbed in process.

mod bench;
mod binary;
mod chart;
mod check;
mod commit;
mod endless;
mod everyday;
mod faults;
mod hostile;
mod invariants;
mod kills;
mod leftovers;
mod matrix;
mod network;
mod overlap;
mod passes;
mod pieces;
mod readme;
mod sample;
mod secrets;
mod sources;
mod sso;
mod stage;
mod time;
mod turns;
