//! The real pass, with the real SDK, against the testbed in process.

mod bench;
mod binary;
mod commit;
mod everyday;
mod faults;
mod invariants;
mod kills;
mod overlap;
mod passes;
mod readme;
