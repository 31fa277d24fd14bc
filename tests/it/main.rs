//! The real pass, with the real SDK, against the testbed in process.

mod bench;
mod commit;
mod everyday;
mod faults;
